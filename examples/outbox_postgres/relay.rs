//! The demo's relay: an embedded SMTP server in a process of its own, so that it counts what it took whoever is killed.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use smtp_pool::testing::{Action, Script, Stage, TestServer};

use crate::database::Error;
use crate::worker;

/// How long it takes before it decides and again before it says so, so that workers are killed on either side of the decision.
const THOUGHT: Duration = Duration::from_millis(4);
/// So many of each fault, spread over the first messages.
const FAULTS: usize = 10;
const SPREAD: usize = 90;

/// The process: says its port, serves until its standard input ends, then says the Message-ID of each mail it took.
pub fn run() -> Result<(), Error> {
    // Ctrl-C goes to every process of a terminal; this one has to outlive the workers.
    let _stop = worker::stop_on_signal()?;
    let mut script = Script::new()
        .on_command(Stage::Rcpt, "nobody-", [Action::reply("550 5.1.1 no such user\r\n")])
        .on(Stage::EndOfData, [Action::DelayFor(THOUGHT), Action::Accept, Action::DelayFor(THOUGHT), Action::Default]);
    for fault in 1..=FAULTS {
        let at = fault * SPREAD;
        script = script
            .on_nth(Stage::Rcpt, at, [Action::reply("450 4.2.0 try again later\r\n")])
            // It took the mail, and the client never learns it.
            .on_nth(Stage::EndOfData, at, [Action::Accept, Action::Reset])
            // It did not take it, and the client cannot know.
            .on_nth(Stage::EndOfData, at + SPREAD / 2, [Action::Reset]);
    }
    let server = TestServer::builder().script(script).record(false).start();
    println!("{}", server.port());
    io::stdin().read_to_end(&mut Vec::new())?;
    for message in server.messages() {
        println!("{}", message.message_id().unwrap_or_default());
    }
    Ok(())
}

/// That process, from outside.
pub struct Relay {
    process: Child,
    said: BufReader<ChildStdout>,
    port: u16,
}

impl Relay {
    pub fn start() -> Result<Self, Error> {
        let mut process =
            Command::new(std::env::current_exe()?).arg("relay").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(process.stdout.take().ok_or("the relay has no output")?);
        let mut port = String::new();
        said.read_line(&mut port)?;
        Ok(Self { process, said, port: port.trim().parse()? })
    }

    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}?tls=none", self.port)
    }

    /// Ends it: how often it took each mail.
    pub fn taken(mut self) -> Result<HashMap<String, usize>, Error> {
        drop(self.process.stdin.take());
        let mut taken = HashMap::new();
        for id in self.said.by_ref().lines() {
            *taken.entry(id?).or_default() += 1;
        }
        Ok(taken)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Without this it might wait for ever for somebody to read its count.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
