//! A name server of one's own: it says what it is told to say, or nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::network::replace_file;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

/// What it says about a name.
#[derive(Clone, Debug)]
pub enum Answer {
    Addresses(Vec<IpAddr>),
    NxDomain,
    ServFail,
    Silence,
}

type Zone = Arc<Mutex<HashMap<String, Answer>>>;

/// The only one that this world's resolver asks. A name it was told nothing about does not exist.
pub struct NameServer(Zone);

impl NameServer {
    pub fn start() -> Self {
        let zone = Zone::default();
        let socket = UdpSocket::bind((ADDRESS, 53)).unwrap();
        let shared = Arc::clone(&zone);
        // Ends with the process.
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((size, from)) = socket.recv_from(&mut buffer) {
                if let Some(reply) = reply(&buffer[..size], &shared) {
                    drop(socket.send_to(&reply, from));
                }
            }
        });
        replace_file("/etc/resolv.conf", &format!("nameserver {ADDRESS}\noptions timeout:1 attempts:5\n"));
        if Path::new("/etc/nsswitch.conf").exists() {
            replace_file("/etc/nsswitch.conf", "hosts: dns\n");
        }
        Self(zone)
    }

    pub fn say(&self, name: &str, answer: Answer) {
        self.0.lock().insert(name.to_owned(), answer);
    }

    pub fn has<const N: usize>(&self, name: &str, addresses: [&str; N]) {
        self.say(name, Answer::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect()));
    }
}

/// RFC 1035 §4.1, as far as a stub resolver sees it.
fn reply(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (mut at, mut name) = (12, String::new());
    loop {
        let length = usize::from(*question.get(at)?);
        let label = question.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
        name.push('.');
    }
    let kind = u16::from_be_bytes(question.get(at..at + 2)?.try_into().ok()?);
    let answer = zone.lock().get(name.trim_end_matches('.')).cloned().unwrap_or(Answer::NxDomain);
    let (code, addresses) = match answer {
        Answer::Silence => return None,
        Answer::NxDomain => (3, Vec::new()),
        Answer::ServFail => (2, Vec::new()),
        Answer::Addresses(addresses) => (0, addresses),
    };
    let of_kind = |address: &&IpAddr| matches!((kind, address), (1, IpAddr::V4(_)) | (28, IpAddr::V6(_)));
    let records: Vec<_> = addresses.iter().filter(of_kind).collect();
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1]);
    reply.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    reply.extend([0; 4]);
    reply.extend(&question[12..at + 4]);
    for record in records {
        // The name of the question, class IN, a minute to live.
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60]);
        let octets = match record {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        reply.extend(u16::try_from(octets.len()).ok()?.to_be_bytes());
        reply.extend(octets);
    }
    Some(reply)
}
