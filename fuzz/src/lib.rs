//! What the targets compare with: replies, offers and content, read and written as plainly as the RFCs say it, a whole buffer at a
//! time. Shares no line with the crate.

/// The bounds that the crate promises, from its specification.
pub const LONGEST_LINE: usize = 2048;
pub const LONGEST_REPLY: usize = 64 * 1024;
pub const MOST_LINES: usize = 256;

/// A reply: its code, and the text of each line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub lines: Vec<Vec<u8>>,
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// A reply of so many bytes.
    Complete(Reply, usize),
    /// The beginning of one, perhaps.
    Incomplete,
    /// Nothing that can become one.
    Nonsense,
}

/// RFC 5321 §4.2: `code [SP text] CRLF`, or `code "-" [text] CRLF` with more to come.
pub fn first_reply(bytes: &[u8]) -> First {
    let mut reply = Reply { code: 0, lines: Vec::new() };
    let mut start = 0;
    loop {
        let Some(length) = bytes[start..].iter().position(|&byte| byte == b'\n').map(|at| at + 1) else {
            let is_too_long = bytes.len() - start > LONGEST_LINE || bytes.len() > LONGEST_REPLY;
            return if is_too_long { First::Nonsense } else { First::Incomplete };
        };
        let end = start + length;
        if length > LONGEST_LINE || end > LONGEST_REPLY || reply.lines.len() == MOST_LINES {
            return First::Nonsense;
        }
        let mut line = bytes[start..end - 1].to_vec();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let digits = line.iter().take(3).filter(|byte| byte.is_ascii_digit()).count();
        if digits != 3 {
            return First::Nonsense;
        }
        let code: u16 = String::from_utf8(line[..3].to_vec()).unwrap().parse().unwrap();
        if !(200..600).contains(&code) || (!reply.lines.is_empty() && code != reply.code) {
            return First::Nonsense;
        }
        reply.code = code;
        reply.lines.push(line.iter().skip(4).copied().collect());
        match line.get(3) {
            None | Some(b' ') => return First::Complete(reply, end),
            Some(b'-') => start = end,
            Some(_) => return First::Nonsense,
        }
    }
}

/// All replies in `bytes`, and what is left over; `None` for nonsense.
pub fn replies(mut bytes: &[u8]) -> (Vec<Reply>, Option<Vec<u8>>) {
    let mut all = Vec::new();
    loop {
        match first_reply(bytes) {
            First::Complete(reply, length) => {
                all.push(reply);
                bytes = &bytes[length..];
            }
            First::Incomplete => return (all, Some(bytes.to_vec())),
            First::Nonsense => return (all, None),
        }
    }
}

/// What a server offers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Offered {
    pub pipelining: bool,
    pub chunking: bool,
    pub size: bool,
    pub size_limit: Option<u64>,
    pub eight_bit_mime: bool,
    pub smtp_utf8: bool,
    pub dsn: bool,
    pub starttls: bool,
    /// Names of mechanisms that the crate speaks, in upper case.
    pub auth: Vec<&'static str>,
    pub mail_max: Option<u32>,
    pub rcpt_max: Option<u32>,
}

/// RFC 5321 §4.1.1.1: a keyword in any case, and parameters; the first line is a name.
pub fn offered(ehlo: &Reply) -> Offered {
    let mut offered = Offered::default();
    for line in &ehlo.lines[1..] {
        let text = String::from_utf8_lossy(line).into_owned();
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let Some(keyword) = words.first().map(|word| word.to_ascii_uppercase()) else { continue };
        let mut mechanisms = words[1..].to_vec();
        match &*keyword {
            "PIPELINING" => offered.pipelining = true,
            "8BITMIME" => offered.eight_bit_mime = true,
            "CHUNKING" => offered.chunking = true,
            "SMTPUTF8" => offered.smtp_utf8 = true,
            "DSN" => offered.dsn = true,
            "STARTTLS" => offered.starttls = true,
            // RFC 1870 §4: `size-value ::= 1*20DIGIT`, and 0 is no limit.
            "SIZE" => {
                offered.size = true;
                offered.size_limit = words.get(1).and_then(|word| number(word)).filter(|&limit| limit > 0);
            }
            // RFC 9422: a name, `=`, and digits without a leading zero.
            "LIMITS" => {
                for word in &words[1..] {
                    let limit =
                        |value| number(value).and_then(|limit| u32::try_from(limit).ok()).filter(|&limit| limit > 0);
                    if let Some(value) = word.strip_prefix("MAILMAX=") {
                        offered.mail_max = limit(value);
                    }
                    if let Some(value) = word.strip_prefix("RCPTMAX=") {
                        offered.rcpt_max = limit(value);
                    }
                }
            }
            _ => {}
        }
        let is_auth = if keyword.starts_with("AUTH=") {
            mechanisms.insert(0, &words[0][5..]);
            true
        } else {
            keyword == "AUTH"
        };
        for word in mechanisms.iter().filter(|_| is_auth) {
            let known = ["PLAIN", "LOGIN", "XOAUTH2"].into_iter().find(|known| known.eq_ignore_ascii_case(word));
            offered.auth.extend(known.filter(|known| !offered.auth.contains(known)));
        }
    }
    offered
}

/// Digits and nothing else, of a number that fits.
fn number(word: &str) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.chars().try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit.to_digit(10)?)))
}

/// Content with every line end as CR LF, and one behind the last line.
pub fn normalised(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, &byte) in content.iter().enumerate() {
        match byte {
            b'\n' if index > 0 && content[index - 1] == b'\r' => {}
            b'\r' | b'\n' => out.extend(b"\r\n"),
            byte => out.push(byte),
        }
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend(b"\r\n");
    }
    out
}

/// RFC 5321 §4.5.2: a period before each line that begins with one, and a line of one period behind it all.
pub fn on_the_wire(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in normalised(content) {
        if byte == b'.' && (out.is_empty() || out.ends_with(b"\r\n")) {
            out.push(b'.');
        }
        out.push(byte);
    }
    out.extend(b".\r\n");
    out
}

/// The content that a server takes from the wire: everything before the first line of one period, and how many bytes that is.
pub fn received(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut content = Vec::new();
    let mut rest = wire;
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")? + 2;
        let (line, behind) = rest.split_at(end);
        rest = behind;
        if line == b".\r\n" {
            return Some((content, wire.len() - rest.len()));
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
}
