//! Bytes into replies, one complete reply at a time, within bounds. Does no I/O.

use crate::event::Desync;
use crate::reply::Reply;

/// The longest line of a reply, its end included. [RFC 5321 §4.5.3.1.5](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1.5)
/// says 512; servers say more.
pub(crate) const MAX_LINE: usize = 2048;
/// The longest reply in bytes.
const MAX_REPLY: usize = 64 * 1024;
/// The longest reply in lines.
const MAX_LINES: usize = 256;

/// A complete reply in the reader's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Complete {
    pub(crate) code: u16,
    start: usize,
    end: usize,
}

/// Collects what arrives until it is a reply.
#[derive(Debug, Default)]
pub(crate) struct ReplyReader {
    buffer: Vec<u8>,
    /// Where the current reply begins.
    start: usize,
    /// Where its first line that has not been understood begins.
    line: usize,
    /// How far that line has been searched for its end.
    searched: usize,
    /// The end of what arrived.
    end: usize,
    lines: usize,
    code: Option<u16>,
}

impl ReplyReader {
    /// Room for more; what is put there is announced by [`filled`](Self::filled).
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.rewind(0);
        } else if self.start > 0 && self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.rewind(self.start);
        }
        if self.end == self.buffer.len() {
            // Grows to little more than the longest reply: `next` refuses longer ones.
            self.buffer.resize((self.end * 2).max(4096), 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Moves every mark as far back as the content was moved; with nothing in the buffer, to its front.
    fn rewind(&mut self, by: usize) {
        let by = if self.start == self.end { self.start } else { by };
        self.start -= by;
        self.end -= by;
        self.line = self.line.max(by) - by;
        self.searched = self.searched.max(by) - by;
    }

    /// `count` more bytes are in the space.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// Whether no byte is left over.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What has arrived and is not yet a reply.
    pub(crate) fn leftover(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The next complete reply, if all of it has arrived. Its bytes stay readable until the next call of `space`.
    pub(crate) fn next(&mut self) -> Result<Option<Complete>, Desync> {
        loop {
            let Some(found) = memchr::memchr(b'\n', &self.buffer[self.searched..self.end]) else {
                self.searched = self.end;
                return if self.end - self.line > MAX_LINE {
                    Err(Desync::LineTooLong)
                } else if self.end - self.start > MAX_REPLY {
                    Err(Desync::ReplyTooLong)
                } else {
                    Ok(None)
                };
            };
            let end = self.searched + found + 1;
            if end - self.line > MAX_LINE {
                return Err(Desync::LineTooLong);
            }
            self.lines += 1;
            if end - self.start > MAX_REPLY || self.lines > MAX_LINES {
                return Err(Desync::ReplyTooLong);
            }
            let (code, is_last) = parse_line(&self.buffer[self.line..end]).ok_or(Desync::Malformed)?;
            if *self.code.get_or_insert(code) != code {
                return Err(Desync::MixedCodes);
            }
            self.line = end;
            self.searched = end;
            if is_last {
                let complete = Complete { code, start: self.start, end };
                self.start = end;
                self.lines = 0;
                self.code = None;
                return Ok(Some(complete));
            }
        }
    }

    /// A complete reply as a value of its own.
    pub(crate) fn to_reply(&self, complete: Complete) -> Reply {
        Reply::from_wire(complete.code, &self.buffer[complete.start..complete.end])
    }
}

/// The code of one line, and whether it is the reply's last; `None` for what is no reply line.
///
/// A bare code is a whole line ([RFC 5321 §4.2](https://www.rfc-editor.org/rfc/rfc5321#section-4.2): clients must take it), and a
/// line may end in LF alone.
fn parse_line(line: &[u8]) -> Option<(u16, bool)> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (&[first @ b'2'..=b'5', second, third], rest) = line.split_first_chunk()? else { return None };
    if !(second.is_ascii_digit() && third.is_ascii_digit()) {
        return None;
    }
    let is_last = match rest.first() {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return None,
    };
    let code = [first, second, third].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Some((code, is_last))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `step` and collects codes until the end or the first fault.
    fn read(bytes: &[u8], step: usize) -> (Vec<u16>, Result<Vec<u8>, Desync>) {
        let mut reader = ReplyReader::default();
        let mut codes = Vec::new();
        for piece in bytes.chunks(step) {
            let mut piece = piece;
            while !piece.is_empty() {
                let space = reader.space();
                let count = piece.len().min(space.len());
                space[..count].copy_from_slice(&piece[..count]);
                reader.filled(count);
                piece = &piece[count..];
            }
            loop {
                match reader.next() {
                    Ok(Some(complete)) => codes.push(complete.code),
                    Ok(None) => break,
                    Err(desync) => return (codes, Err(desync)),
                }
            }
        }
        (codes, Ok(reader.leftover().to_vec()))
    }

    #[test]
    fn replies_come_out_whatever_the_segments() {
        let dialogue = b"220 hi\r\n250-a\r\n250-\r\n250 \r\n354\r\n250 lf only\n550-5.1.1 x\r\n550 5.1.1 \xff\r\n25";
        for step in 1..dialogue.len() {
            assert_eq!(read(dialogue, step), (vec![220, 250, 354, 250, 550], Ok(b"25".to_vec())), "step {step}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for line in ["199 x", "600 x", "25", "2500", "250x", "hello", "", " 250 x", "25a x", "\u{660}50 x", "-250"] {
            let bytes = format!("{line}\r\n");
            assert_eq!(read(bytes.as_bytes(), 1).1, Err(Desync::Malformed), "{line:?}");
        }
        assert_eq!(read(b"250-x\r\n251 x\r\n", 3).1, Err(Desync::MixedCodes));
    }

    #[test]
    fn a_reply_has_bounds() {
        let line_of = |length: usize| [b"250 ".as_slice(), &vec![b'x'; length - 6], b"\r\n"].concat();
        assert_eq!(read(&line_of(MAX_LINE), 700).0, [250]);
        assert_eq!(read(&line_of(MAX_LINE + 1), 700).1, Err(Desync::LineTooLong));
        assert_eq!(read(&[b'2'; MAX_LINE + 1], 700).1, Err(Desync::LineTooLong));
        let lines_of = |count: usize| [b"250-x\r\n".repeat(count - 1), b"250 x\r\n".to_vec()].concat();
        assert_eq!(read(&lines_of(MAX_LINES), 1000).0, [250]);
        assert_eq!(read(&lines_of(MAX_LINES + 1), 1000).1, Err(Desync::ReplyTooLong));
        let long_lines = [b"250-".as_slice(), &[b'x'; 1990], b"\r\n"].concat().repeat(40);
        assert_eq!(read(&long_lines, 5000).1, Err(Desync::ReplyTooLong));
    }

    #[test]
    fn the_buffer_does_not_grow_with_the_dialogue() {
        let mut reader = ReplyReader::default();
        let mut bytes = b"250 2.0.0 Ok: queued as 4ABCDEF\r\n".iter().copied().cycle();
        for round in 1..5_000 {
            let space = reader.space();
            let count = (round % 61).min(space.len());
            space[..count].iter_mut().for_each(|byte| *byte = bytes.next().unwrap());
            reader.filled(count);
            while reader.next().unwrap().is_some() {}
        }
        assert!(reader.buffer.len() <= 4096, "{}", reader.buffer.len());
    }
}
