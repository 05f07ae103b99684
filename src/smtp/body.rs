//! A message's content as it goes over the wire: line ends normalised, then dots stuffed where a dot ends it. Does no I/O.

/// A message's content, and what one look at all of it tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    bytes: &'a [u8],
    /// Whether it is more than ASCII.
    pub(crate) is_eight_bit: bool,
    /// How many octets travel: with line ends normalised, without dots that are stuffed and without the end of data, as
    /// [RFC 1870 §3](https://www.rfc-editor.org/rfc/rfc1870#section-3) counts a message's size.
    pub(crate) size: usize,
    /// Whether every line end is CR LF and no line but the first begins with a dot, so that it can leave as it is.
    is_regular: bool,
}

impl<'a> From<&'a [u8]> for Content<'a> {
    /// One pass without a branch, which the compiler makes SIMD of: most content is regular, and this is what lets short lines through
    /// at more than 2 GB/s.
    fn from(bytes: &'a [u8]) -> Self {
        /// Short enough that what is summed up in bytes overflows none.
        const BLOCK: usize = 240;
        let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
            return Self { bytes, is_eight_bit: false, size: 0, is_regular: true };
        };
        // Of two neighbours, CR before anything but LF and LF behind anything but CR are each a line end that grows by one octet.
        let (mut bare, mut dots, mut all) = (0, 0, last);
        for (block, nexts) in bytes.chunks(BLOCK).zip(bytes[1..].chunks(BLOCK)) {
            let mut bare_here = 0u8;
            for (&byte, &next) in block.iter().zip(nexts) {
                bare_here += u8::from((byte == b'\r') != (next == b'\n'));
                dots |= u8::from((byte == b'\n') & (next == b'.'));
                all |= byte;
            }
            bare += usize::from(bare_here);
        }
        bare += usize::from(first == b'\n');
        let at_the_end = match last {
            b'\r' => 1,
            b'\n' => 0,
            _ => 2,
        };
        Self {
            bytes,
            is_eight_bit: !all.is_ascii(),
            size: bytes.len() + bare + at_the_end,
            is_regular: bare == 0 && dots == 0 && last != b'\r',
        }
    }
}

impl Content<'_> {
    /// How long it is as the caller has it.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Encodes one message's content.
///
/// CR LF, LF and CR each end a line and leave as CR LF, so that no two servers can disagree about where the content ends
/// ([RFC 5321 §2.3.8](https://www.rfc-editor.org/rfc/rfc5321#section-2.3.8); "SMTP smuggling", CVE-2023-51764). The last line gets
/// an end only if it lacks one ([§4.1.1.4](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.1.4)). What a server stores is the same
/// whichever way the content is framed.
#[derive(Debug)]
pub(crate) struct BodyEncoder<'a> {
    rest: &'a [u8],
    /// Whether all of it can leave as it is.
    is_regular: bool,
    at_line_start: bool,
    framing: Framing,
}

/// How the server knows where the content ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// By a dot on a line of its own, after DATA: a dot at the beginning of any other line is doubled
    /// ([RFC 5321 §4.5.2](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.2)).
    Dot,
    /// By the count in front of it, after BDAT: a dot means nothing
    /// ([RFC 3030 §2](https://www.rfc-editor.org/rfc/rfc3030#section-2)). Lines still end in CR LF, as long as BINARYMIME is not said.
    Count,
}

impl<'a> BodyEncoder<'a> {
    /// For content behind DATA.
    pub(crate) const fn new(content: Content<'a>) -> Self {
        let Content { bytes: rest, is_regular, .. } = content;
        Self { rest, is_regular, at_line_start: true, framing: Framing::Dot }
    }

    /// For content behind BDAT.
    pub(crate) const fn counted(content: Content<'a>) -> Self {
        Self { framing: Framing::Count, ..Self::new(content) }
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
            if self.is_regular || Content::from(window).is_regular {
                self.copy(window, out);
                self.at_line_start = window.ends_with(b"\n");
            } else {
                let behind = self.rest.len() - window.len();
                while self.rest.len() > behind && out.len() < limit {
                    self.copy_line(limit - out.len(), out);
                }
            }
        }
        out.extend_from_slice(match (self.framing, self.at_line_start) {
            (Framing::Dot, true) => b".\r\n",
            (Framing::Dot, false) => b"\r\n.\r\n",
            (Framing::Count, true) => b"",
            (Framing::Count, false) => b"\r\n",
        });
        true
    }

    /// Copies `text`, which comes next, as it is but for a dot at its beginning.
    fn copy(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if self.at_line_start && self.framing == Framing::Dot && text.starts_with(b".") {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(content: &[u8], framing: Framing, step: usize) -> Vec<u8> {
        let mut encoder = match framing {
            Framing::Dot => BodyEncoder::new(content.into()),
            Framing::Count => BodyEncoder::counted(content.into()),
        };
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

    /// The lines of the content, a byte at a time and as plainly as it can be said.
    fn lines_naively(content: &[u8]) -> Vec<Vec<u8>> {
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
        lines
    }

    fn encode_naively(content: &[u8], framing: Framing) -> Vec<u8> {
        let mut wire = Vec::new();
        for line in lines_naively(content) {
            if framing == Framing::Dot && line.first() == Some(&b'.') {
                wire.push(b'.');
            }
            wire.extend(line);
            wire.extend(b"\r\n");
        }
        if framing == Framing::Dot {
            wire.extend(b".\r\n");
        }
        wire
    }

    /// The octets of RFC 1870: lines with CR LF, dots as they were.
    fn size_of(content: &[u8]) -> usize {
        lines_naively(content).iter().map(|line| line.len() + 2).sum()
    }

    /// Bytes of which every other one matters, and the seed they came from.
    fn random_content(seed: u64, up_to: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        let alphabet =
            *random.choice([b"\r\n.x".as_slice(), b"\r\n.\0\x0d\x0a.", b"abc.\r\n\xff\x80 \t"].iter()).unwrap();
        let length = random.usize(..=up_to);
        let byte = |random: &mut fastrand::Rng| {
            if random.u8(..4) == 0 { random.u8(..) } else { *random.choice(alphabet).unwrap() }
        };
        (0..length).map(|_| byte(&mut random)).collect()
    }

    #[test]
    fn any_bytes_in_any_chunks_are_lines_that_give_the_content_back() {
        for seed in 0..4_000 {
            let content = random_content(seed, 1_500);
            let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
            let mut encoder = BodyEncoder::new(content[..].into());
            let (mut wire, mut chunk) = (Vec::new(), Vec::new());
            while !encoder.fill(&mut chunk, random.usize(1..200)) {
                wire.append(&mut chunk);
            }
            wire.append(&mut chunk);
            // `([^\r\n]*\r\n)*`: nothing but CR LF ends a line, and nothing else of CR or LF is there.
            let text = wire.strip_suffix(b"\r\n").expect("ends with CR LF");
            let lines = text.split(|&byte| byte == b'\n').collect::<Vec<_>>();
            let (last, others) = lines.split_last().unwrap();
            assert_eq!(*last, b".", "seed {seed}");
            let mut unstuffed = Vec::new();
            for line in others {
                let line = line.strip_suffix(b"\r").unwrap_or_else(|| panic!("bare LF, seed {seed}"));
                assert!(!line.contains(&b'\r'), "bare CR, seed {seed}");
                assert_ne!(line, b".", "an end of data before the end, seed {seed}");
                unstuffed.push(line.strip_prefix(b".").unwrap_or(line));
            }
            assert_eq!(unstuffed, lines_naively(&content), "seed {seed}");
            let Content { size, is_eight_bit, .. } = content[..].into();
            assert_eq!((size, is_eight_bit), (size_of(&content), !content.is_ascii()), "seed {seed}");
        }
    }

    /// Every string over the bytes that matter, up to six of them.
    fn every_content() -> impl Iterator<Item = Vec<u8>> {
        let alphabet = [b'\r', b'\n', b'.', b'x'];
        (0..=6).flat_map(move |length| {
            let all = 0..alphabet.len().pow(length);
            all.map(move |number| (0..length).map(|place| alphabet[number / 4usize.pow(place) % 4]).collect())
        })
    }

    #[test]
    fn the_end_of_data_stands_once_and_last() {
        for content in every_content() {
            let expected = encode_naively(&content, Framing::Dot);
            for step in 1..=expected.len() {
                assert_eq!(encode(&content, Framing::Dot, step), expected, "{content:?} in chunks of {step}");
            }
            assert_eq!(Content::from(&content[..]).size, size_of(&content), "{content:?}");
            let framed = [b"\r\n".as_slice(), &expected].concat();
            let ends = framed.windows(5).filter(|window| window == b"\r\n.\r\n").count();
            assert!(ends == 1 && framed.ends_with(b"\r\n.\r\n"), "{content:?}");
        }
    }

    #[test]
    fn what_is_stored_does_not_depend_on_the_framing() {
        for content in every_content() {
            let counted = encode_naively(&content, Framing::Count);
            for step in 1..=counted.len() + 1 {
                assert_eq!(encode(&content, Framing::Count, step), counted, "{content:?} in chunks of {step}");
            }
            // What a server makes of DATA: the end taken off, and the first dot of each line (RFC 5321 §4.5.2).
            let dotted = encode(&content, Framing::Dot, usize::MAX);
            let dotted = dotted.strip_suffix(b".\r\n").unwrap();
            let lines = dotted.split_inclusive(|&byte| byte == b'\n');
            let stored: Vec<u8> = lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line).to_vec()).collect();
            assert_eq!(stored, counted, "{content:?}");
            assert!(counted.is_empty() || counted.ends_with(b"\r\n"), "{content:?}");
            let size = Content::from(&content[..]).size;
            assert_eq!(counted.len(), size, "{content:?}: what BDAT counts is what SIZE says");
        }
    }

    #[test]
    fn no_line_end_is_added_that_is_there() {
        for (content, dotted, counted) in [
            (&b""[..], &b".\r\n"[..], &b""[..]),
            (b"a", b"a\r\n.\r\n", b"a\r\n"),
            (b"a\r\n", b"a\r\n.\r\n", b"a\r\n"),
            (b".\r\n..\r\n", b"..\r\n...\r\n.\r\n", b".\r\n..\r\n"),
        ] {
            assert_eq!(encode(content, Framing::Dot, 10), dotted);
            assert_eq!(encode(content, Framing::Count, 10), counted);
        }
    }
}
