//! Postfix's smtp-source: a C program with an event loop, one command at a time on each connection.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Load, Peer};
use crate::clock;
use crate::paired::Contestant;

pub struct SmtpSource {
    port: u16,
    connections: usize,
    size: usize,
    /// What a run costs that sends next to nothing: starting the program and connecting.
    overhead: Duration,
}

impl SmtpSource {
    pub fn new(load: &Load) -> Self {
        assert_eq!(load.recipients, 1, "nobody has asked for more yet");
        let mut source =
            Self { port: load.server.port, connections: load.connections, size: load.size, overhead: Duration::ZERO };
        source.overhead = (0..5).map(|_| source.run(load.connections)).min().unwrap();
        source
    }

    fn run(&self, messages: usize) -> Duration {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/source.sh");
        let started = clock::now();
        let output = Command::new("bash")
            .arg(script)
            .args([usize::from(self.port), self.connections, messages, self.size].map(|number| number.to_string()))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let took = clock::now() - started;
        assert!(output.status.success(), "smtp-source: {}", String::from_utf8_lossy(&output.stderr));
        took
    }
}

impl Contestant for SmtpSource {
    fn name(&self) -> &str {
        Peer::SmtpSource.name()
    }

    fn work(&mut self, amount: usize) -> Duration {
        // A message for each connection more than asked for: those that the overhead has sent. A run so short that it is mostly
        // overhead tells little either way.
        let took = self.run(amount + self.connections);
        took.saturating_sub(self.overhead).max(took / 4)
    }

    fn granularity(&self) -> usize {
        self.connections
    }
}
