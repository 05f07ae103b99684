//! The relay of those who have none: an embedded server that takes its time, and does not take everything.

use std::collections::HashMap;
use std::time::Duration;

use smtp_pool::Host;
use smtp_pool::testing::{Action, Script, Stage, TestServer};

/// So that there is something to see, and to interrupt.
const THOUGHT: Duration = Duration::from_millis(150);

pub struct Relay(TestServer);

impl Relay {
    pub fn start() -> Self {
        let script = Script::new()
            .on_command(Stage::Rcpt, "nobody", [Action::reply("550 5.1.1 no such user\r\n")])
            .on_nth(Stage::Rcpt, 20, [Action::reply("450 4.2.0 greylisted, come back\r\n")])
            // It takes the mail, and the sender never learns it.
            .on_nth(Stage::EndOfData, 70, [Action::Accept, Action::Reset])
            .on(Stage::EndOfData, [Action::DelayFor(THOUGHT), Action::Default]);
        Self(TestServer::builder().script(script).record(false).start())
    }

    pub fn host(&self) -> Host {
        Host::plain("127.0.0.1").port(self.0.port())
    }

    /// How many mails it took, and how many recipients have more than one.
    pub fn count(&self) -> (usize, usize) {
        let messages = self.0.messages();
        let mut each: HashMap<&str, usize> = HashMap::new();
        for recipient in messages.iter().flat_map(|message| message.recipients()) {
            *each.entry(recipient).or_default() += 1;
        }
        (messages.len(), each.values().filter(|count| **count > 1).count())
    }
}
