//! Command lines: verbs, paths and parameters of RFC 5321 §4.1.

use super::script::Stage;

/// The verb of a line, in upper case, and the rest without the blank between.
pub(super) fn split(line: &[u8]) -> (String, &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let verb = String::from_utf8_lossy(&line[..end]).to_ascii_uppercase();
    (verb, line.get(end + 1..).unwrap_or_default())
}

pub(super) fn stage_of(verb: &str) -> Stage {
    match verb {
        "EHLO" | "HELO" => Stage::Ehlo,
        "STARTTLS" => Stage::StartTls,
        "AUTH" => Stage::Auth,
        "MAIL" => Stage::Mail,
        "RCPT" => Stage::Rcpt,
        "DATA" => Stage::Data,
        "BDAT" => Stage::Bdat,
        "RSET" => Stage::Rset,
        "NOOP" => Stage::Noop,
        "QUIT" => Stage::Quit,
        _ => Stage::Other,
    }
}

/// `FROM:<address> PARAM=value …` taken apart.
#[derive(Debug, Default)]
pub(super) struct Path {
    pub(super) address: String,
    pub(super) parameters: Vec<String>,
}

impl Path {
    /// `keyword` is `FROM:` or `TO:`. Strict: no blank behind the colon, angle brackets required.
    pub(super) fn parse(keyword: &str, argument: &[u8]) -> Option<Self> {
        let argument = std::str::from_utf8(argument).ok()?;
        if !argument.get(..keyword.len())?.eq_ignore_ascii_case(keyword) {
            return None;
        }
        let rest = argument[keyword.len()..].strip_prefix('<')?;
        let end = closing_bracket(rest)?;
        let (address, after) = (&rest[..end], &rest[end + 1..]);
        if !after.is_empty() && !after.starts_with(' ') {
            return None;
        }
        let parameters: Vec<String> = match after.strip_prefix(' ') {
            Some(parameters) => parameters.split(' ').map(str::to_owned).collect(),
            None => Vec::new(),
        };
        if parameters.iter().any(String::is_empty) {
            return None;
        }
        // A source route is to be accepted and ignored (RFC 5321 appendix C).
        let address = match address.strip_prefix('@') {
            Some(route) => route.split_once(':')?.1,
            None => address,
        };
        Some(Self { address: address.to_owned(), parameters })
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find_map(|parameter| {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.parameter(name).is_some()
    }

    /// `local@domain`, both parts present, nothing a mailbox cannot hold outside quotes.
    pub(super) fn is_mailbox(&self) -> bool {
        let Some((local, domain)) = self.address.rsplit_once('@') else {
            return false;
        };
        let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
        let plain =
            |text: &str| !text.is_empty() && !text.chars().any(|c| c <= ' ' || c == '\x7f' || "<>()\"".contains(c));
        (quoted || plain(local)) && plain(domain) && !domain.contains('@')
    }
}

/// Where the path ends: the first `>` outside a quoted string.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// `BDAT size [LAST]` (RFC 3030 §2).
pub(super) fn parse_bdat(argument: &[u8]) -> Option<(usize, bool)> {
    let argument = std::str::from_utf8(argument).ok()?;
    let (size, last) = match argument.split_once(' ') {
        Some((size, last)) if last.eq_ignore_ascii_case("LAST") => (size, true),
        Some(_) => return None,
        None => (argument, false),
    };
    let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| size.parse().ok()).flatten().map(|size| (size, last))
}
