//! Message content: the end of DATA, dot-unstuffing, and what RFC 5321 forbids inside.

/// Longest line, without its CRLF (RFC 5321 §4.5.3.1.6).
pub(super) const LINE_LIMIT: usize = 998;

/// Collects the content of one message.
#[derive(Debug, Default)]
pub(super) struct Content {
    bytes: Vec<u8>,
    line: Line,
    /// Bytes as sent, for the rules that count them.
    pub(super) seen: usize,
    /// Size the message would have; `bytes` stops growing at the limit.
    pub(super) size: usize,
    limit: usize,
    /// A line began with a single dot that was not the final one.
    pub(super) lone_dot: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Start,
    Dot,
    DotCr,
    /// Inside a line; whether the last byte was CR.
    Middle(bool),
}

impl Content {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self { limit: limit.unwrap_or(usize::MAX), ..Self::default() }
    }

    /// Takes bytes of DATA. Returns how many belong to the message and whether the final dot was among them.
    pub(super) fn feed(&mut self, input: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < input.len() {
            let byte = input[at];
            match self.line {
                Line::Start if byte == b'.' => {
                    self.line = Line::Dot;
                    at += 1;
                }
                Line::Dot if byte == b'\r' => {
                    self.line = Line::DotCr;
                    at += 1;
                }
                Line::DotCr if byte == b'\n' => {
                    self.seen += at + 1;
                    return (at + 1, true);
                }
                Line::Dot => {
                    self.lone_dot |= byte != b'.';
                    self.line = Line::Middle(false);
                }
                Line::DotCr => {
                    self.lone_dot = true;
                    self.keep(b"\r");
                    self.line = Line::Middle(true);
                }
                Line::Start => self.line = Line::Middle(false),
                Line::Middle(after_cr) => {
                    let rest = &input[at..];
                    let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
                    let (piece, last) = (&rest[..end], rest[end - 1]);
                    let cr_before = if end > 1 { rest[end - 2] == b'\r' } else { after_cr };
                    self.keep(piece);
                    // Only CRLF ends a line: after a bare LF a dot is an ordinary byte (SMTP smuggling).
                    self.line = if last == b'\n' && cr_before { Line::Start } else { Line::Middle(last == b'\r') };
                    at += end;
                }
            }
        }
        self.seen += at;
        (at, false)
    }

    /// Takes bytes of a BDAT chunk, which are not stuffed.
    pub(super) fn feed_chunk(&mut self, input: &[u8]) {
        self.seen += input.len();
        self.keep(input);
    }

    pub(super) fn too_big(&self) -> bool {
        self.size > self.limit
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn keep(&mut self, piece: &[u8]) {
        self.size += piece.len();
        if self.size <= self.limit {
            self.bytes.extend_from_slice(piece);
        }
    }
}

/// What is wrong with a complete message, each kind of fault once.
pub(super) fn faults(content: &[u8], eight_bit_allowed: bool) -> Vec<&'static str> {
    let (mut bare_cr, mut bare_lf, mut nul, mut long, mut eight_bit) = (false, false, false, false, false);
    let mut line_start = 0;
    for (at, byte) in content.iter().enumerate() {
        match byte {
            b'\n' => {
                let crlf = at > 0 && content[at - 1] == b'\r';
                bare_lf |= !crlf;
                long |= at - usize::from(crlf) - line_start > LINE_LIMIT;
                line_start = at + 1;
            }
            b'\r' => bare_cr |= content.get(at + 1) != Some(&b'\n'),
            0 => nul = true,
            0x80.. => eight_bit = true,
            _ => {}
        }
    }
    long |= content.len() - line_start > LINE_LIMIT;
    [
        (bare_cr, "bare CR in the content"),
        (bare_lf, "bare LF in the content"),
        (nul, "NUL in the content"),
        (long, "line of more than 998 bytes in the content"),
        (eight_bit && !eight_bit_allowed, "8-bit content without BODY=8BITMIME or SMTPUTF8"),
        (!content.is_empty() && !content.ends_with(b"\r\n"), "content does not end with CRLF"),
    ]
    .into_iter()
    .filter_map(|(present, text)| present.then_some(text))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An oracle that looks for CRLF.CRLF in the whole and unstuffs line by line.
    fn naive(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
        let whole = [b"\r\n", wire].concat();
        let end = whole.windows(5).position(|window| window == b"\r\n.\r\n")?;
        let body = &whole[2.min(end)..end + 2];
        let body = if end == 0 { &[][..] } else { body };
        let mut out = Vec::new();
        let mut start = true;
        for (at, byte) in body.iter().enumerate() {
            if !(start && *byte == b'.') {
                out.push(*byte);
            }
            start = *byte == b'\n' && at > 0 && body[at - 1] == b'\r';
        }
        Some((out, end + 3))
    }

    /// Every string over the five interesting bytes up to length 7, in every split into two reads.
    #[test]
    fn agrees_with_the_naive_reader() {
        let alphabet = [b'.', b'\r', b'\n', b'a'];
        for length in 3..=7_u32 {
            for number in 0..4_usize.pow(length) {
                let mut wire = Vec::new();
                let mut rest = number;
                for _ in 0..length {
                    wire.push(alphabet[rest % 4]);
                    rest /= 4;
                }
                wire.extend_from_slice(b"\r\n.\r\nQUIT\r\n");
                let (expected, used) = naive(&wire).unwrap();
                for split in [0, length as usize / 2, length as usize] {
                    let mut content = Content::new(None);
                    let (first, done) = content.feed(&wire[..split]);
                    let total = if done { first } else { first + content.feed(&wire[split..]).0 };
                    assert_eq!(
                        (content.bytes(), total),
                        (&expected[..], used),
                        "{:?}",
                        wire.escape_ascii().to_string()
                    );
                }
            }
        }
    }
}
