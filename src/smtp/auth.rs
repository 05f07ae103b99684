//! The AUTH exchange ([RFC 4954](https://www.rfc-editor.org/rfc/rfc4954)). Never logged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::transport::smtp::authentication::Mechanism;
use zeroize::Zeroizing;

use crate::event::{Desync, Event, Policy, Step};
use crate::options::{Credentials, Host};
use crate::stage::SendStage;

use super::capabilities::Capabilities;
use super::failure::Failure;
use super::wire::Wire;

/// What a step of a mechanism sends, its line end included. Made in one piece: a string that grows leaves a copy of what it held
/// behind, which nobody overwrites.
type Response = Zeroizing<String>;

/// Authenticates with the first mechanism that is allowed here and offered there.
pub(super) fn authenticate(
    wire: &mut Wire,
    server: &Capabilities,
    host: &Host,
    credentials: &Credentials,
) -> Result<(), Failure> {
    if !wire.stream().is_encrypted() && !host.plaintext_auth {
        return Err(Failure::new(Event::Policy(Policy::PlaintextAuth), SendStage::Connected));
    }
    let mechanism = host.auth_mechanisms.iter().copied().find(|mechanism| server.auth.contains(mechanism));
    let Some(mechanism) = mechanism else {
        return Err(Failure::new(Event::Policy(Policy::NoCommonMechanism), SendStage::Connected));
    };
    let mut line = opening(mechanism, credentials);
    for challenges in 0.. {
        let reply = exchange(wire, &line)?;
        if reply != Outcome::Challenge {
            return Ok(());
        }
        line = answer(mechanism, challenges, credentials).ok_or_else(|| {
            Failure::new(Event::OutOfStep(Step::Auth, Desync::EndlessChallenges), SendStage::Connected)
        })?;
    }
    Ok(())
}

/// Whether the server refused the credentials themselves
/// ([RFC 4954 §6](https://www.rfc-editor.org/rfc/rfc4954#section-6): 535 invalid; 534, for a token, too weak or too old).
pub(super) const fn is_refusal(failure: &Failure) -> bool {
    matches!(failure.event, Event::Reply(Step::Auth, 534 | 535))
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Authenticated,
    Challenge,
}

fn exchange(wire: &mut Wire, line: &str) -> Result<Outcome, Failure> {
    let stage = SendStage::Connected;
    wire.send_secret(line.as_bytes()).map_err(|error| Failure::transport(Step::Auth, error, stage))?;
    let complete = wire.read().map_err(|error| Failure::wire(Step::Auth, error, stage))?;
    match complete.code {
        235 => Ok(Outcome::Authenticated),
        // Whatever stands behind a challenge was said without having heard the answer.
        334 if wire.has_leftover() => Err(Failure::new(Event::OutOfStep(Step::Auth, Desync::Unsolicited), stage)),
        334 => Ok(Outcome::Challenge),
        221 | 400.. => Err(Failure::refused(Step::Auth, wire.to_reply(complete), stage)),
        code => Err(Failure::new(Event::OutOfStep(Step::Auth, Desync::WrongClass(code)), stage)),
    }
}

/// The command, with the first answer behind the mechanism's name where it has one, so that the exchange takes one round trip.
fn opening(mechanism: Mechanism, credentials: &Credentials) -> Response {
    let name = mechanism.to_string();
    let (user, password) = (credentials.user(), credentials.expose());
    let answer = match mechanism {
        Mechanism::Xoauth2 => joined(&["user=", user, "\x01auth=Bearer ", password, "\x01\x01"]),
        Mechanism::Login => return joined(&["AUTH ", &name, "\r\n"]),
        // RFC 4616: no authorization identity, authentication identity, password.
        _ => joined(&["\0", user, "\0", password]),
    };
    joined(&["AUTH ", &name, " ", &encoded(&answer), "\r\n"])
}

/// The answer to a challenge, counted from 0; `None` when the mechanism has no such step.
///
/// The challenges' text is not looked at: servers word and case LOGIN's prompts as they like, and their order is the same everywhere.
fn answer(mechanism: Mechanism, challenge: u32, credentials: &Credentials) -> Option<Response> {
    match (mechanism, challenge) {
        (Mechanism::Login, 0) => Some(joined(&[&encoded(credentials.user()), "\r\n"])),
        (Mechanism::Login, 1) => Some(joined(&[&encoded(credentials.expose()), "\r\n"])),
        // The challenge is an error in JSON; an empty answer brings the refusal itself.
        (Mechanism::Xoauth2, 0) => Some(joined(&["\r\n"])),
        _ => None,
    }
}

fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(BASE64.encode(text))
}

fn joined(parts: &[&str]) -> Zeroizing<String> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut whole = Zeroizing::new(String::with_capacity(length));
    parts.iter().for_each(|part| whole.push_str(part));
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_those_of_the_mechanisms_documents() {
        // RFC 4616 §4: "tim" with password "tanstaaftanstaaf", without authorization identity.
        let tim = Credentials::new("tim", "tanstaaftanstaaf");
        assert_eq!(*opening(Mechanism::Plain, &tim), "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n");
        assert_eq!(*opening(Mechanism::Login, &tim), "AUTH LOGIN\r\n");
        assert_eq!(*answer(Mechanism::Login, 0, &tim).unwrap(), "dGlt\r\n");
        assert_eq!(*answer(Mechanism::Login, 1, &tim).unwrap(), "dGFuc3RhYWZ0YW5zdGFhZg==\r\n");
        // Google, "OAuth 2.0 mechanism", its own example.
        let google = Credentials::new("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg");
        assert_eq!(
            *opening(Mechanism::Xoauth2, &google),
            "AUTH XOAUTH2 dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ==\r\n"
        );
        for line in [opening(Mechanism::Plain, &tim), opening(Mechanism::Xoauth2, &google)] {
            assert_eq!(line.capacity(), line.len(), "made in one piece");
        }
        assert!(answer(Mechanism::Plain, 0, &tim).is_none());
        assert!(answer(Mechanism::Login, 2, &tim).is_none());
        assert!(answer(Mechanism::Xoauth2, 1, &tim).is_none());
    }
}
