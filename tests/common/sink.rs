//! A private smtp-sink, started by `tests/servers/sink.sh`, to be killed and started again.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use smtp_pool::Host;

pub struct Sink {
    directory: PathBuf,
    port: u16,
    keeps: bool,
}

impl Sink {
    /// One that keeps what it takes.
    pub fn start(port: u16) -> Self {
        Self::of(port, true)
    }

    /// One that forgets what it takes, and is as fast as it can be.
    pub fn forgetful(port: u16) -> Self {
        Self::of(port, false)
    }

    fn of(port: u16, keeps: bool) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("smtp-pool-sink-{}-{number}", std::process::id()));
        let sink = Self { directory, port, keeps };
        sink.start_again();
        sink
    }

    pub fn start_again(&self) {
        let keeps = if self.keeps { "1" } else { "" };
        let started = self.script("start").arg(self.port.to_string()).env("SINK_KEEPS", keeps).status();
        assert!(
            started.expect("bash runs").success(),
            "\n\nThis needs smtp-sink, and it did not start (see above).\n\
             Install it with `tests/servers/get-pkgs.sh` (as root, on Debian or Ubuntu) and run this as root.\n"
        );
    }

    /// Ends it as its operator would.
    pub fn stop(&self) {
        let stopped = self.script("stop").status().expect("bash runs");
        assert!(stopped.success(), "smtp-sink did not stop");
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        super::postfix::kill(&[self.process()]);
        fs::remove_file(self.directory.join("pid")).expect("the script notes the process");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn process(&self) -> u32 {
        let pid = fs::read_to_string(self.directory.join("pid")).expect("the script notes the process");
        pid.trim().parse().expect("a process has a number")
    }

    pub fn host(&self) -> Host {
        Host::plain("127.0.0.1").port(self.port)
    }

    /// How often each Message-ID was taken, of messages that hold `end` too: one cut short does not.
    pub fn taken(&self, end: &str) -> HashMap<String, usize> {
        let mut taken = HashMap::new();
        let Ok(files) = fs::read_dir(self.directory.join("mail")) else { return taken };
        for file in files {
            let text = fs::read(file.expect("a folder can be listed").path()).expect("mail can be read");
            let text = String::from_utf8_lossy(&text);
            let id = text.lines().find_map(|line| line.strip_prefix("Message-ID: <")?.strip_suffix('>'));
            if let (Some(id), true) = (id, text.lines().any(|line| line == end)) {
                *taken.entry(id.to_owned()).or_default() += 1;
            }
        }
        taken
    }

    fn script(&self, command: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/sink.sh");
        let mut bash = Command::new("bash");
        bash.arg(script).arg(command).arg(&self.directory).stdin(Stdio::null()).stdout(Stdio::null());
        bash
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.script("stop").status().is_ok_and(|status| status.success()) {
            drop(fs::remove_dir_all(&self.directory));
        }
    }
}
