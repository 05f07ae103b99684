//! Sends within two seconds or says why not: on one host, and on two, where the second takes over inside the same two seconds.
//!
//! ```text
//! cargo run --example strict_sla
//! ```
//!
//! The hosts are embedded servers with one trouble each. For every mail that is not sent the trace is printed: what the call did, step by
//! step, and where its time went. The program fails if a call took longer than it may, or if a server has what its sender was told it
//! has not.
//!
//! What a program with a deadline has to know: when it is over, a mail whose last byte has left is in doubt
//! (`FailureKind::UnknownAfterData`), and more often so than with the patience that the defaults have. Whoever must not send twice does
//! not send such a mail again.

use std::error::Error;
use std::time::{Duration, Instant};

use lettre::Message;
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{FailureKind, Host, SendOptions, SmtpSender};

/// What a caller may wait.
const AGREED: Duration = Duration::from_secs(2);
/// What a busy machine may add to it before its threads have their turn.
const SLACK: Duration = Duration::from_millis(250);

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let well = Script::new();
    // It takes connections and says nothing, as a machine does that is out of memory.
    let hung = || Script::new().on(Stage::Connect, [Action::Silence]);
    let shut_for_today = Script::new().on(Stage::Connect, [Action::reply("421 4.3.2 back tomorrow\r\n"), Action::Fin]);
    // It is well until the mail is with it, and then takes longer than anybody waits.
    let slow_to_answer = Script::new().on(Stage::EndOfData, [Action::Accept, Action::Silence]);

    use Expected::{InDoubt, NotSent, Sent};
    let scenes: [(&str, Vec<Script>, Expected); 6] = [
        ("one host, well", vec![well.clone()], Sent),
        ("one host, hung", vec![hung()], NotSent),
        ("one host, closed", vec![shut_for_today.clone()], NotSent),
        ("two hosts, the first closed", vec![shut_for_today, well.clone()], Sent),
        ("two hosts, the first hung", vec![hung(), well], Sent),
        ("one host, no answer to the mail", vec![slow_to_answer], InDoubt),
    ];
    for (title, scripts, expected) in scenes {
        println!("{title}");
        play(scripts, expected).map_err(|error| format!("{title}: {error}"))?;
    }
    println!("Every call kept to {AGREED:?}, and said what the servers say.");
    Ok(())
}

/// How a call of a scene has to end.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Sent,
    NotSent,
    InDoubt,
}

fn play(scripts: Vec<Script>, expected: Expected) -> Result<(), Failure> {
    let servers: Vec<TestServer> =
        scripts.into_iter().map(|script| TestServer::builder().script(script).start()).collect();
    let hosts = (0..).zip(&servers).map(|(rank, server)| Host::plain("127.0.0.1").port(server.port()).priority(rank));
    let sender = SmtpSender::builder()
        .hosts(hosts)
        // While another host has not been tried, a try to connect gets half of what is left of this: the first host one second at most.
        .acquire_timeout(AGREED)
        .build()?;

    let message = message()?;
    let started = now();
    let outcome = send_in_time(&sender, &message, started + AGREED);
    let took = started.elapsed();

    let ended = match outcome {
        Ok(()) => Expected::Sent,
        Err(FailureKind::UnknownAfterData) => Expected::InDoubt,
        Err(_) => Expected::NotSent,
    };
    let stored: usize = servers.iter().map(|server| server.messages().len()).sum();
    if took > AGREED + SLACK {
        return Err(format!("it took {took:?}").into());
    }
    if ended != expected || stored != usize::from(expected != Expected::NotSent) {
        return Err(format!("{ended:?}, and the servers have {stored} mails").into());
    }
    Ok(())
}

/// What a program does for one mail: all of it by `deadline`, and a reason if not.
fn send_in_time(sender: &SmtpSender, message: &Message, deadline: Instant) -> Result<(), FailureKind> {
    let options = SendOptions::new().deadline(deadline);
    match sender.send_with(message.envelope(), &message.formatted(), &options) {
        Ok(receipt) => {
            println!("  sent via {} in {:.1?}", receipt.endpoint(), receipt.elapsed());
            Ok(())
        }
        Err(error) => {
            let verdict = match error.kind() {
                FailureKind::UnknownAfterData => "in doubt, and not sent again",
                _ if error.is_retry_safe() => "not sent, and may be tried again",
                _ => "not sent, and never will be",
            };
            println!("  {verdict}: {error}");
            for line in error.trace().to_string().lines() {
                println!("    {line}");
            }
            Err(error.kind())
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a program of its own")]
fn now() -> Instant {
    Instant::now()
}

fn message() -> Result<Message, Failure> {
    Ok(Message::builder()
        .from("shop@example.com".parse()?)
        .to("customer@example.com".parse()?)
        .subject("Your new password")
        .body("Follow this link.".to_owned())?)
}
