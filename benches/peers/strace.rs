//! What a message costs a process, counted from outside: system calls by strace, instructions by callgrind.
//!
//! The process does nothing but send; the difference between a long and a short run of it is what the messages cost, and counts
//! of it hardly vary.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::client::Peer;
use crate::paired::as_f64;

/// The hidden command line of such a process: `--send PEER PORT SIZE MESSAGES`.
pub const SEND: &str = "--send";

/// One peer that sends messages of `size` bytes to `port`.
#[derive(Debug, Clone, Copy)]
pub struct Traced {
    pub peer: Peer,
    pub port: u16,
    pub size: usize,
}

/// System calls a message: all of them, and each kind's.
pub struct Calls {
    pub total: f64,
    pub kinds: Vec<(String, f64)>,
}

impl Traced {
    /// Counted over so many messages; `None` where strace does not run.
    pub fn system_calls(self, messages: usize) -> Option<Calls> {
        let (short, long) = (self.strace(messages)?, self.strace(2 * messages)?);
        let each = |name: &str| {
            let before = short.get(name).copied().unwrap_or(0);
            as_f64(long[name].saturating_sub(before)) / as_f64(messages)
        };
        let kinds = long.keys().filter(|&name| name != "total").map(|name| (name.clone(), each(name)));
        Some(Calls { total: each("total"), kinds: kinds.filter(|&(_, each)| each >= 0.05).collect() })
    }

    /// Counted over so many messages; `None` where valgrind does not run.
    pub fn instructions(self, messages: usize) -> Option<f64> {
        let (short, long) = (self.callgrind(messages)?, self.callgrind(2 * messages)?);
        Some(as_f64(long.saturating_sub(short)) / as_f64(messages))
    }

    fn strace(self, messages: usize) -> Option<BTreeMap<String, usize>> {
        let summary = scratch("strace");
        let is_done = self.run(Command::new("strace").args(["-f", "-c", "-o"]).arg(&summary), messages);
        let text = fs::read_to_string(&summary);
        drop(fs::remove_file(&summary));
        // "% time  seconds  usecs/call  calls  [errors]  syscall"
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, calls, .., name] = words[..] else { return None };
            Some((name.to_owned(), calls.parse().ok()?))
        };
        is_done.then_some(())?;
        Some(text.ok()?.lines().filter_map(line).collect())
    }

    fn callgrind(self, messages: usize) -> Option<usize> {
        let profile = scratch("callgrind");
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", &format!("--callgrind-out-file={}", profile.display())]);
        let is_done = self.run(&mut valgrind, messages);
        let text = fs::read_to_string(&profile);
        drop(fs::remove_file(&profile));
        is_done.then_some(())?;
        text.ok()?.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
    }

    fn run(self, tracer: &mut Command, messages: usize) -> bool {
        let status = tracer
            .arg(env::current_exe().unwrap())
            .args([SEND, self.peer.key()])
            .args([usize::from(self.port), self.size, messages].map(|number| number.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }
}

fn scratch(name: &str) -> PathBuf {
    env::temp_dir().join(format!("smtp-pool-{name}-{}", std::process::id()))
}
