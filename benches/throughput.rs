//! Messages per second over one connection, against the limit: a bare loop on a raw socket.
//!
//! ```text
//! tests/servers/get-pkgs.sh                      # once: Postfix's smtp-sink, as root, on Debian or Ubuntu
//! cargo bench --bench throughput                 # fails when the ratio is short of the goal
//! cargo bench --bench throughput -- --quick      # a short run that only has to work
//! ```
//!
//! Both clients send the same 700-byte message to the same smtp-sink, in turns, so that whatever else the machine does hits both. Only
//! ratios are meaningful: the server shares the machine with its clients.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lettre::address::Envelope;
use smtp_pool::testing::TestServer;
use smtp_pool::{Host, SmtpSender};
#[cfg(target_os = "linux")]
use socket2::SockRef;

const FROM: &str = "from@example.com";
const TO: &str = "to@example.com";
const MESSAGE_SIZE: usize = 700;
/// What this crate must reach of the raw loop's rate.
const GOAL: f64 = 0.9;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(21, 2_000, true),
        ["--quick"] => compare(2, 300, false),
        ["--send", port, count] => {
            pooled_sends(&sender_to(port.parse().unwrap()), count.parse().unwrap());
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: cargo bench --bench throughput [-- --quick]");
            ExitCode::FAILURE
        }
    }
}

/// Runs both clients in turns.
fn compare(pairs: usize, messages: usize, must_reach_goal: bool) -> ExitCode {
    let sink = match Sink::start() {
        Ok(sink) => sink,
        Err(why) => {
            eprintln!("{why}\n\nThis bench needs Postfix's smtp-sink: install it with tests/servers/get-pkgs.sh");
            return ExitCode::FAILURE;
        }
    };
    let mut raw = RawClient::connect(sink.port);
    let sender = sender_to(sink.port);
    // Both find their pace.
    raw.send(messages / 10);
    pooled_sends(&sender, messages / 10);

    println!("{MESSAGE_SIZE}-byte messages over one connection to smtp-sink, {messages} a run\n");
    println!("run   raw loop [1/s]   smtp-pool [1/s]   ratio");
    let mut ratios = Vec::new();
    for pair in 0..pairs {
        let (raw_rate, pooled_rate);
        if pair % 2 == 0 {
            raw_rate = rate(messages, || raw.send(messages));
            pooled_rate = rate(messages, || pooled_sends(&sender, messages));
        } else {
            pooled_rate = rate(messages, || pooled_sends(&sender, messages));
            raw_rate = rate(messages, || raw.send(messages));
        }
        let ratio = pooled_rate / raw_rate;
        println!("{:>3}   {raw_rate:>14.0}   {pooled_rate:>15.0}   {ratio:>5.3}", pair + 1);
        ratios.push(ratio);
    }
    assert_eq!(sender.status().created, 1, "all over one connection");
    ratios.sort_by(f64::total_cmp);
    let (median, least, most) = (ratios[ratios.len() / 2], ratios[0], ratios[ratios.len() - 1]);
    let verdict = if median >= GOAL { "pass" } else { "SHORT" };
    println!("\nratio: median {median:.3}, min {least:.3}, max {most:.3}; goal {GOAL}: {verdict}");
    println!("round trips a message: {}", round_trips());
    match system_calls(sink.port, messages / 4) {
        Some(calls) => println!("system calls a message: {calls}"),
        None => println!("system calls a message: not counted, strace does not run here"),
    }
    if must_reach_goal && median < GOAL { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn rate(messages: usize, work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    #[expect(clippy::cast_precision_loss, reason = "a number of messages is small")]
    let messages = messages as f64;
    messages / started.elapsed().as_secs_f64()
}

fn content() -> Vec<u8> {
    let mut content = format!("From: {FROM}\r\nTo: {TO}\r\nSubject: throughput\r\n\r\n").into_bytes();
    let line = b"It was a dark and stormy night; the rain fell in torrents.\r\n";
    content.extend(line.iter().cycle().take(MESSAGE_SIZE - content.len() - 2));
    content.extend(b"\r\n");
    assert_eq!(content.len(), MESSAGE_SIZE);
    content
}

fn sender_to(port: u16) -> SmtpSender {
    SmtpSender::builder().host(Host::plain("127.0.0.1").port(port)).max_size(1usize).build().unwrap()
}

fn pooled_sends(sender: &SmtpSender, messages: usize) {
    let envelope = Envelope::new(Some(FROM.parse().unwrap()), vec![TO.parse().unwrap()]).unwrap();
    let content = content();
    for _ in 0..messages {
        sender.send_raw(&envelope, &content).unwrap();
    }
}

/// As little as a client can do for a message: two writes, two waits, no look at what the replies say.
struct RawClient {
    stream: TcpStream,
    envelope: Vec<u8>,
    content: Vec<u8>,
}

impl RawClient {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut client = Self {
            stream,
            envelope: format!("MAIL FROM:<{FROM}>\r\nRCPT TO:<{TO}>\r\nDATA\r\n").into_bytes(),
            content: [&content(), &b".\r\n"[..]].concat(),
        };
        client.read_replies(1);
        client.stream.write_all(b"EHLO [127.0.0.1]\r\n").unwrap();
        client.read_replies(1);
        client
    }

    fn send(&mut self, messages: usize) {
        for _ in 0..messages {
            self.stream.write_all(&self.envelope).unwrap();
            #[cfg(target_os = "linux")]
            SockRef::from(&self.stream).set_tcp_quickack(true).unwrap();
            self.read_replies(3);
            self.stream.write_all(&self.content).unwrap();
            self.read_replies(1);
        }
    }

    /// Reads so many replies: lines whose fourth byte is no hyphen.
    fn read_replies(&mut self, mut due: usize) {
        let mut buffer = [0; 4096];
        let mut end = 0;
        let mut line = 0;
        while due > 0 {
            let read = self.stream.read(&mut buffer[end..]).unwrap();
            assert!(read > 0, "the server closed");
            end += read;
            while let Some(length) = buffer[line..end].iter().position(|&byte| byte == b'\n') {
                assert!(matches!(buffer[line], b'2' | b'3'), "{}", String::from_utf8_lossy(&buffer[line..end]));
                due -= usize::from(buffer[line + 3] != b'-');
                line += length + 1;
            }
        }
    }
}

/// How often the dialogue turns for one message in the steady state, by the transcript of the embedded server.
fn round_trips() -> f64 {
    const MESSAGES: usize = 100;
    let server = TestServer::start();
    let sender = sender_to(server.port());
    let turns = |messages| {
        pooled_sends(&sender, messages);
        server.transcript(1).round_trips()
    };
    let before = turns(1);
    let spent = turns(MESSAGES) - before;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let each = spent as f64 / MESSAGES as f64;
    each
}

/// What a message costs in system calls: the difference between a long and a short run of a process that does nothing else.
fn system_calls(port: u16, messages: usize) -> Option<String> {
    let short = traced_calls(port, messages)?;
    let long = traced_calls(port, 2 * messages)?;
    let each = |name: &str| {
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let calls = long[name].saturating_sub(short.get(name).copied().unwrap_or(0)) as f64 / messages as f64;
        calls
    };
    let parts: Vec<String> = long
        .keys()
        .filter(|&name| name != "total" && each(name) >= 0.01)
        .map(|name| format!("{} {:.2}", name, each(name)))
        .collect();
    Some(format!("{:.2} ({})", each("total"), parts.join(", ")))
}

/// The calls of each kind that sending so many messages takes, by `strace -c`.
fn traced_calls(port: u16, messages: usize) -> Option<BTreeMap<String, u64>> {
    let summary = env::temp_dir().join(format!("smtp-pool-strace-{}", std::process::id()));
    let status = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&summary)
        .arg(env::current_exe().ok()?)
        .args(["--send", &port.to_string(), &messages.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let text = fs::read_to_string(&summary);
    drop(fs::remove_file(&summary));
    if !status.is_ok_and(|status| status.success()) {
        return None;
    }
    // "% time  seconds  usecs/call  calls  [errors]  syscall"
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, calls, .., name] = words[..] else { return None };
        Some((name.to_owned(), calls.parse().ok()?))
    };
    Some(text.ok()?.lines().filter_map(line).collect())
}

/// A running smtp-sink; ends with its value.
struct Sink {
    directory: PathBuf,
    port: u16,
}

impl Sink {
    fn start() -> Result<Self, String> {
        // Nobody else is likely to be given this port in the moment until smtp-sink has it.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.map_err(|error| error.to_string())?.port();
        let sink = Self { directory: env::temp_dir().join(format!("smtp-pool-sink-{}", std::process::id())), port };
        let started = sink.script("start").arg(port.to_string()).output().map_err(|error| error.to_string())?;
        if started.status.success() { Ok(sink) } else { Err(String::from_utf8_lossy(&started.stderr).into_owned()) }
    }

    fn script(&self, command: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/sink.sh"));
        bash.arg(command).arg(&self.directory).stdin(Stdio::null());
        bash
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.script("stop").output());
        drop(fs::remove_dir_all(&self.directory));
    }
}
