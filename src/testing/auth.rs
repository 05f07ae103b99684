//! The server's side of AUTH (RFC 4954): PLAIN, LOGIN, XOAUTH2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a step of the exchange leads to.
#[derive(Debug)]
pub(super) enum Progress {
    /// Send `334` with this text and wait for a line.
    Challenge(String),
    Success(String),
    /// Wrong user or secret.
    Refused,
    /// `*`.
    Cancelled,
    /// Not base64, or not what the mechanism asks for.
    Malformed,
    UnknownMechanism,
}

/// An exchange that waits for a line of the client.
#[derive(Debug)]
pub(super) enum Exchange {
    Plain,
    LoginUser,
    LoginPassword(String),
    XOAuth2,
    /// The error report was sent, the client owes an empty line.
    XOAuth2Refused,
    /// Entered by a script; no mechanism behind it.
    Scripted,
}

type Credentials = [(String, String)];

/// `AUTH mechanism [initial-response]`. The exchange returned goes on when the progress is a challenge.
pub(super) fn begin(
    mechanism: &str,
    initial: Option<&[u8]>,
    offered: &[String],
    known: &Credentials,
) -> (Option<Exchange>, Progress) {
    if !offered.iter().any(|offer| offer.eq_ignore_ascii_case(mechanism)) {
        return (None, Progress::UnknownMechanism);
    }
    let (exchange, prompt) = match mechanism.to_ascii_uppercase().as_str() {
        "PLAIN" => (Exchange::Plain, ""),
        "LOGIN" => (Exchange::LoginUser, "VXNlcm5hbWU6"),
        "XOAUTH2" => (Exchange::XOAuth2, ""),
        _ => return (None, Progress::UnknownMechanism),
    };
    match initial {
        None => (Some(exchange), Progress::Challenge(prompt.to_owned())),
        // RFC 4954 §4: "=" stands for an initial response of no bytes.
        Some(b"=") => step(exchange, b"", known),
        Some(initial) => step(exchange, initial, known),
    }
}

/// A line of the client, still in base64.
pub(super) fn step(exchange: Exchange, line: &[u8], known: &Credentials) -> (Option<Exchange>, Progress) {
    if line == b"*" {
        return (None, Progress::Cancelled);
    }
    if matches!(exchange, Exchange::XOAuth2Refused) {
        return (None, Progress::Refused);
    }
    let Some(text) = STANDARD.decode(line).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return (None, Progress::Malformed);
    };
    let check = |user: &str, secret: &str| {
        let right = known.iter().any(|(name, password)| name == user && password == secret);
        if right { Progress::Success(user.to_owned()) } else { Progress::Refused }
    };
    match exchange {
        Exchange::Plain => {
            let mut parts = text.split('\0');
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(_), Some(user), Some(password), None) => (None, check(user, password)),
                _ => (None, Progress::Malformed),
            }
        }
        Exchange::LoginUser => (Some(Exchange::LoginPassword(text)), Progress::Challenge("UGFzc3dvcmQ6".to_owned())),
        Exchange::LoginPassword(user) => (None, check(&user, &text)),
        Exchange::XOAuth2 => {
            let field = |name: &str| text.split('\x01').find_map(|part| part.strip_prefix(name));
            match (field("user="), field("auth=Bearer ")) {
                (Some(user), Some(token)) => match check(user, token) {
                    Progress::Refused => {
                        let report = STANDARD.encode(r#"{"status":"401","schemes":"bearer","scope":"mail"}"#);
                        (Some(Exchange::XOAuth2Refused), Progress::Challenge(report))
                    }
                    other => (None, other),
                },
                _ => (None, Progress::Malformed),
            }
        }
        Exchange::XOAuth2Refused | Exchange::Scripted => (None, Progress::Refused),
    }
}
