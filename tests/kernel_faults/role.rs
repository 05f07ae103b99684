//! Processes beside the case's own: a server that can be stopped, a client that can be.
//!
//! They are this same program with another task. Each answers every line of its standard input with one of its standard output, and
//! ends with the input.

use std::io::{BufRead, BufReader, Write, stdin};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use smtp_pool::testing::{Security, TestServer};
use smtp_pool::{Host, SmtpSender};

use super::common::{ms, send, sender};

const ROLE: &str = "SMTP_POOL_KERNEL_ROLE";

/// The task of this process, when it is one of these.
pub enum Role {
    /// `server`: an embedded server that keeps no content.
    Server,
    /// `server FILE`: the same with implicit TLS; its authority's certificate is written to the file.
    TlsServer(String),
    /// `client PORT`: a sender over one connection, with a second for every timer.
    Client(u16),
}

pub fn asked_for() -> Option<Role> {
    let task = std::env::var(ROLE).ok()?;
    Some(match task.split_once(' ') {
        None => Role::Server,
        Some(("server", file)) => Role::TlsServer(file.to_owned()),
        Some((_, port)) => Role::Client(port.parse().unwrap()),
    })
}

impl Role {
    pub fn play(&self) {
        match self {
            Self::Server => serve(None),
            Self::TlsServer(file) => serve(Some(file)),
            Self::Client(port) => {
                let second = Duration::from_secs(1);
                let sender = sender(Host::plain("127.0.0.1").port(*port)).max_size(1).send_timeout(second);
                let sender = sender.final_reply_timeout(second).connect_timeout(second).build().unwrap();
                println!("ready");
                each_line(|id| outcome(&sender, id));
            }
        }
    }
}

fn serve(certificate: Option<&str>) {
    let builder = TestServer::builder().size(None).record(false).keep_messages(false);
    let security = if certificate.is_some() { Security::ImplicitTls } else { Security::Plain };
    let server = builder.security(security).start();
    if let Some(file) = certificate {
        std::fs::write(file, server.root_certificate_pem()).unwrap();
    }
    println!("{}", server.port());
    each_line(|id| server.accepted(id).to_string());
}

fn outcome(sender: &SmtpSender, id: &str) -> String {
    let left = |sender: &SmtpSender| sender.status().counts.leased;
    match send(sender, id) {
        Ok(receipt) => format!("sent, attempt {}, connection {}", receipt.attempts(), receipt.connection_id()),
        Err(error) => format!("{:?} {:?}, {} leased", error.kind(), error.stage(), left(sender)),
    }
}

fn each_line(answer: impl Fn(&str) -> String) {
    for line in stdin().lines().map_while(Result::ok) {
        println!("{}", answer(&line));
    }
}

/// A running one, ended by force when this is dropped.
pub struct Player {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// Its first line.
    pub greeting: String,
}

impl Player {
    pub fn start(task: &str) -> Self {
        // Whatever folder the program is in, and whatever name it has in here.
        let mut command = Command::new("/proc/self/exe");
        command.env(ROLE, task).env_remove("LD_PRELOAD").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut player = Self { child, to, from, greeting: String::new() };
        player.greeting = player.answer();
        player
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.answer()
    }

    /// As if the machine had no time for it, until [`resume`](Self::resume).
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
        let path = format!("/proc/{}/stat", self.child.id());
        super::common::eventually("it has stopped", || {
            std::fs::read_to_string(&path).unwrap().rsplit(')').next().unwrap().starts_with(" T")
        });
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server in a process of its own.
pub struct Server(pub Player);

impl Server {
    pub fn start() -> Self {
        Self(Player::start("server"))
    }

    /// With implicit TLS.
    pub fn with_certificate_in(file: &str) -> Self {
        Self(Player::start(&format!("server {file}")))
    }

    pub fn port(&self) -> u16 {
        self.0.greeting.parse().unwrap()
    }

    pub fn host(&self) -> Host {
        Host::plain("127.0.0.1").port(self.port())
    }

    pub fn accepted(&mut self, id: &str) -> usize {
        self.0.ask(id).parse().unwrap()
    }
}

/// The timers of [`Role::Client`], and enough on top for them to be over.
pub const OVERTIME: Duration = ms(1500);
