//! The AUTH exchange ([RFC 4954](https://www.rfc-editor.org/rfc/rfc4954)). Never logged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::transport::smtp::authentication::Mechanism;
use zeroize::Zeroizing;

use crate::event::{Desync, Event, Policy, Step};
use crate::options::{Host, Secret};
use crate::stage::SendStage;

use super::capabilities::Capabilities;
use super::failure::Failure;
use super::wire::Wire;

/// What a step of a mechanism sends, or why there is no such step.
type Response = Zeroizing<String>;

/// Authenticates with the first mechanism that is allowed here and offered there.
pub(super) fn authenticate(
    wire: &mut Wire,
    server: &Capabilities,
    host: &Host,
    secret: &Secret,
) -> Result<(), Failure> {
    if !wire.stream().is_encrypted() && !host.plaintext_auth {
        return Err(Failure::new(Event::Policy(Policy::PlaintextAuth), SendStage::Connected));
    }
    let mechanism = host.auth_mechanisms.iter().copied().find(|mechanism| server.auth.contains(mechanism));
    let Some(mechanism) = mechanism else {
        return Err(Failure::new(Event::Policy(Policy::NoCommonMechanism), SendStage::Connected));
    };
    let mut line = Zeroizing::new(format!("AUTH {mechanism}"));
    if mechanism.supports_initial_response() {
        line.push(' ');
        line.push_str(&initial_response(mechanism, secret));
    }
    for challenges in 0.. {
        line.push_str("\r\n");
        let reply = exchange(wire, &line)?;
        if reply != Outcome::Challenge {
            return Ok(());
        }
        line = answer(mechanism, challenges, secret).ok_or_else(|| {
            Failure::new(Event::OutOfStep(Step::Auth, Desync::EndlessChallenges), SendStage::Connected)
        })?;
    }
    Ok(())
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
        334 => Ok(Outcome::Challenge),
        221 | 400.. => Err(Failure::refused(Step::Auth, wire.to_reply(complete), stage)),
        code => Err(Failure::new(Event::OutOfStep(Step::Auth, Desync::WrongClass(code)), stage)),
    }
}

/// What follows the mechanism's name in the command, so that the exchange takes one round trip.
fn initial_response(mechanism: Mechanism, secret: &Secret) -> Response {
    let (user, password) = (secret.identity(), secret.expose());
    let response = Zeroizing::new(match mechanism {
        Mechanism::Xoauth2 => format!("user={user}\x01auth=Bearer {password}\x01\x01"),
        // RFC 4616: no authorization identity, authentication identity, password.
        _ => format!("\0{user}\0{password}"),
    });
    encode(&response)
}

/// The answer to a challenge, counted from 0; `None` when the mechanism has no such step.
///
/// The challenges' text is not looked at: servers word and case LOGIN's prompts as they like, and their order is the same everywhere.
fn answer(mechanism: Mechanism, challenge: u32, secret: &Secret) -> Option<Response> {
    match (mechanism, challenge) {
        (Mechanism::Login, 0) => Some(encode(secret.identity())),
        (Mechanism::Login, 1) => Some(encode(secret.expose())),
        // The challenge is an error in JSON; an empty answer brings the refusal itself.
        (Mechanism::Xoauth2, 0) => Some(Response::default()),
        _ => None,
    }
}

fn encode(text: &str) -> Response {
    Zeroizing::new(BASE64.encode(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_those_of_the_mechanisms_documents() {
        // RFC 4616 §4: "tim" with password "tanstaaftanstaaf", without authorization identity.
        let tim = Secret::new("tim".into(), "tanstaaftanstaaf".into());
        assert_eq!(*initial_response(Mechanism::Plain, &tim), "AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
        assert_eq!(*answer(Mechanism::Login, 0, &tim).unwrap(), "dGlt");
        assert_eq!(*answer(Mechanism::Login, 1, &tim).unwrap(), "dGFuc3RhYWZ0YW5zdGFhZg==");
        // Google, "OAuth 2.0 mechanism", its own example.
        let google = Secret::new("someuser@example.com".into(), "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg".into());
        assert_eq!(
            *initial_response(Mechanism::Xoauth2, &google),
            "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ=="
        );
        assert!(answer(Mechanism::Plain, 0, &tim).is_none());
        assert!(answer(Mechanism::Login, 2, &tim).is_none());
        assert!(answer(Mechanism::Xoauth2, 1, &tim).is_none());
    }
}
