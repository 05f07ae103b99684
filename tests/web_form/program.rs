//! The example as a process, and a client of it that is not a browser.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};

use smtp_pool::testing::TestServer;

use crate::common::{PATIENCE, eventually};
use crate::example::example;

/// Dies with its value.
pub struct Program {
    process: Child,
    said: BufReader<ChildStdout>,
    pub address: String,
}

impl Program {
    /// With this relay, or the embedded one.
    pub fn start(relay: Option<&TestServer>) -> Self {
        let mut command = example("web_form");
        command.stdout(Stdio::piped()).stderr(Stdio::null()).env("WEB_FORM_LISTEN", "127.0.0.1:0");
        if let Some(relay) = relay {
            command.env("SMTP_URL", format!("smtp://127.0.0.1:{}?tls=none", relay.port()));
        }
        let mut process = command.spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let mut program = Self { process, said, address: String::new() };
        program.address = program.says("Listening on http://");
        program
    }

    /// Waits for a line that begins so, and returns the rest of it. The end of the process ends the wait.
    pub fn says(&mut self, beginning: &str) -> String {
        let line = self.said.by_ref().lines().map(Result::unwrap).find(|line| line.starts_with(beginning));
        line.unwrap_or_else(|| panic!("it ended without \"{beginning}\""))[beginning.len()..].to_owned()
    }

    #[cfg(unix)]
    pub fn interrupt(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        kill_process(Pid::from_child(&self.process), Signal::INT).unwrap();
    }

    pub fn ends_well(mut self) {
        eventually("it has ended", || self.process.try_wait().unwrap().is_some_and(|status| status.success()));
    }

    /// One that asks while this value is in other hands.
    pub fn client(&self) -> Client {
        Client { address: self.address.clone() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.client().get(path)
    }

    /// The form that a browser is led to, once it is there.
    pub fn form(&self) -> Reply {
        let led = self.get("/");
        assert_eq!(led.status, 303);
        self.get(led.header("Location").unwrap())
    }

    pub fn post(&self, fields: &[(&str, &str)]) -> Reply {
        self.client().post(fields)
    }

    pub fn post_with(&self, lines: &str, fields: &[(&str, &str)]) -> Reply {
        self.client().post_with(lines, fields)
    }

    pub fn ask(&self, request: &str) -> Reply {
        self.client().ask(request)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub struct Client {
    address: String,
}

impl Client {
    pub fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address))
    }

    pub fn post(&self, fields: &[(&str, &str)]) -> Reply {
        self.post_with("", fields)
    }

    /// With these header lines besides.
    pub fn post_with(&self, lines: &str, fields: &[(&str, &str)]) -> Reply {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let length = body.len();
        self.ask(&format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {length}\r\n{lines}\r\n{body}",
            self.address
        ))
    }

    pub fn ask(&self, request: &str) -> Reply {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        Reply::of(&String::from_utf8(answer).unwrap())
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Reply {
    fn of(answer: &str) -> Self {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub fn retry_after(&self) -> Option<u64> {
        self.header("Retry-After").map(|value| value.parse().unwrap())
    }

    /// What stands between the first `from` and the next `to`.
    pub fn between(&self, from: &str, to: &str) -> &str {
        let rest = self.body.split_once(from).unwrap_or_else(|| panic!("no {from} in {}", self.body)).1;
        rest.split_once(to).unwrap().0
    }

    pub fn ticket(&self) -> &str {
        self.between("name=\"ticket\" value=\"", "\"")
    }
}
