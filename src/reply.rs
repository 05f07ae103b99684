//! What a server said.

use std::fmt;

/// One complete SMTP reply: a code and its lines of text.
///
/// The text is the server's, byte for byte ([`lines`](Self::lines)); it need not be UTF-8 and may hold anything. `Display` and
/// `Debug` show it without control characters and cut after [`Reply::SHOWN`] bytes, so that a reply can be logged safely.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reply {
    code: u16,
    /// The lines without code, separator and line end, joined by LF.
    text: Vec<u8>,
}

impl Reply {
    /// How many bytes of text `Display` shows at most.
    pub const SHOWN: usize = 512;

    /// A reply from its bytes on the wire; `wire` is known to be well formed.
    pub(crate) fn from_wire(code: u16, wire: &[u8]) -> Self {
        let mut text = Vec::with_capacity(wire.len());
        for line in wire.split_inclusive(|&byte| byte == b'\n') {
            if !text.is_empty() || line.as_ptr() != wire.as_ptr() {
                text.push(b'\n');
            }
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            text.extend_from_slice(line.get(4..).unwrap_or_default());
        }
        Self { code, text }
    }

    /// The three-digit code, 200 to 599.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// Whether the code is 2yz.
    #[must_use]
    pub const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether the code is 4yz: the same message may be accepted later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// Whether the code is 5yz.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The lines of text as they came, without code and line end.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split(|&byte| byte == b'\n')
    }

    /// The enhanced status code that the text begins with, if its class agrees with the code
    /// ([RFC 2034 §4](https://www.rfc-editor.org/rfc/rfc2034#section-4)).
    #[must_use]
    pub fn enhanced_code(&self) -> Option<EnhancedCode> {
        let (class, rest) = leading_number(&self.text)?;
        let (subject, rest) = leading_number(rest.strip_prefix(b".")?)?;
        let (detail, rest) = leading_number(rest.strip_prefix(b".")?)?;
        let is_word = rest.first().is_none_or(u8::is_ascii_whitespace);
        let agrees = class == self.code / 100 && matches!(class, 2 | 4 | 5);
        (is_word && agrees).then_some(EnhancedCode { class, subject, detail })
    }
}

/// The number of one to three digits that `text` begins with, and the rest.
fn leading_number(text: &[u8]) -> Option<(u16, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    (1..=3).contains(&digits).then(|| (number.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')), rest))
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.text.is_empty() {
            f.write_str(" ")?;
            write_printable(f, &self.text, Self::SHOWN)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({self})")
    }
}

/// Writes at most `limit` bytes of somebody else's `text`: line ends become ` / `, what could steer a terminal becomes `?`.
pub(crate) fn write_printable(f: &mut impl fmt::Write, text: &[u8], limit: usize) -> fmt::Result {
    let shown = &text[..text.len().min(limit)];
    for character in String::from_utf8_lossy(shown).chars() {
        match character {
            '\n' => f.write_str(" / ")?,
            _ if is_harmless(character) => f.write_char(character)?,
            _ => f.write_char('?')?,
        }
    }
    if shown.len() < text.len() { f.write_str("…") } else { Ok(()) }
}

/// Whether a terminal shows `character` as a plain glyph: no C0 or C1 control, no change of writing direction, no line break.
pub(crate) fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// An enhanced mail system status code, `class.subject.detail` ([RFC 3463](https://www.rfc-editor.org/rfc/rfc3463)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EnhancedCode {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u16,
    /// What it is about: 1 addressing, 2 mailbox, 3 mail system, …
    pub subject: u16,
    /// The precise condition.
    pub detail: u16,
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_keeps_its_lines_byte_for_byte() {
        let reply = Reply::from_wire(250, b"250-first\r\n250-\xff\n250\r\n");
        assert_eq!(reply.lines().collect::<Vec<_>>(), [&b"first"[..], b"\xff", b""]);
        let blank_first = Reply::from_wire(250, b"250\r\n");
        assert_eq!(blank_first.lines().collect::<Vec<_>>(), [&b""[..]]);
        let blank_then_text = Reply::from_wire(250, b"250-\r\n250 x\r\n");
        assert_eq!(blank_then_text.lines().collect::<Vec<_>>(), [&b""[..], b"x"]);
    }

    #[test]
    fn the_enhanced_code_must_agree_with_the_code() {
        let code = |code, wire: &[u8]| Reply::from_wire(code, wire).enhanced_code().map(|code| code.to_string());
        assert_eq!(code(550, b"550 5.1.1 no such user\r\n").as_deref(), Some("5.1.1"));
        assert_eq!(code(550, b"550 4.1.1 contradicts itself\r\n"), None);
        assert_eq!(code(550, b"550 5.1 short\r\n"), None);
        assert_eq!(code(550, b"550 5.1.1234 long\r\n"), None);
        assert_eq!(code(354, b"354 3.0.0 no such class\r\n"), None);
    }

    #[test]
    fn a_shown_reply_cannot_steer_a_terminal() {
        let reply = Reply::from_wire(535, "535-\u{1b}[31mred\u{202e}\r\n535 \0\u{9b}end\r\n".as_bytes());
        assert_eq!(reply.to_string(), "535 ?[31mred? / ??end");
        // Unicode's Bidi_Control, all twelve of them.
        for steering in
            ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain(['\u{61c}', '\u{200e}', '\u{200f}'])
        {
            let reply = Reply::from_wire(250, format!("250 a{steering}b\r\n").as_bytes());
            assert_eq!(reply.to_string(), "250 a?b", "U+{:04X}", u32::from(steering));
        }
        let long = Reply::from_wire(250, &[b"250 ".as_slice(), &[b'x'; 2000]].concat());
        assert!(long.to_string().len() < Reply::SHOWN + 10);
    }
}
