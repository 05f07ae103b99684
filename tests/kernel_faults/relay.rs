//! A link in user space, as slow and as untidy as a test wants it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use smtp_pool::Host;
use socket2::SockRef;

use super::common::pace;

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    Straight,
    /// Each read of either direction is held back for up to so long.
    Delayed(Duration),
    /// Both directions leave in segments of one byte.
    Split,
    /// What the server says within so long of itself leaves in one piece.
    Merged(Duration),
    /// After so many bytes of the server the client gets RST.
    CutAfter(usize),
}

struct Setting {
    target: u16,
    manner: Manner,
}

/// Stands before a server. Its threads end with the connections and with the process.
pub struct Relay {
    addr: SocketAddr,
    setting: Arc<Mutex<Setting>>,
}

impl Relay {
    pub fn before(target: u16, manner: Manner) -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), target, manner)
    }

    pub fn on(listener: TcpListener, target: u16, manner: Manner) -> Self {
        let addr = listener.local_addr().unwrap();
        let setting = Arc::new(Mutex::new(Setting { target, manner }));
        let shared = Arc::clone(&setting);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (target, manner) = {
                    let setting = shared.lock();
                    (setting.target, setting.manner)
                };
                if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) {
                    join(client, server, manner);
                }
            }
        });
        Self { addr, setting }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    pub fn host(&self) -> Host {
        Host::plain("127.0.0.1").port(self.port())
    }

    /// For connections from now on.
    pub fn set_target(&self, target: u16) {
        self.setting.lock().target = target;
    }

    /// For connections from now on.
    pub fn set_manner(&self, manner: Manner) {
        self.setting.lock().manner = manner;
    }
}

fn join(client: TcpStream, server: TcpStream, manner: Manner) {
    let (client, server) = (Arc::new(client), Arc::new(server));
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let there = (Arc::clone(&client), Arc::clone(&server));
    thread::spawn(move || carry(&there.0, &there.1, manner, false));
    thread::spawn(move || carry(&server, &client, manner, true));
}

/// Carries one direction to its end.
fn carry(from: &TcpStream, to: &TcpStream, manner: Manner, from_server: bool) {
    let mut buffer = [0; 65_536];
    let mut left = match manner {
        Manner::CutAfter(bytes) if from_server => bytes,
        _ => usize::MAX,
    };
    while let Ok(read @ 1..) = (&*from).read(&mut buffer) {
        let mut bytes = buffer[..read].to_vec();
        if let (Manner::Merged(quiet), true) = (manner, from_server) {
            more_until_quiet(from, quiet, &mut bytes);
        }
        if let Manner::Delayed(longest) = manner {
            pace(longest.mul_f64(fastrand::f64()));
        }
        bytes.truncate(left);
        left -= bytes.len();
        let sent = match manner {
            Manner::Split => bytes.iter().try_for_each(|byte| (&*to).write_all(&[*byte])),
            _ => (&*to).write_all(&bytes),
        };
        if left == 0 {
            // The other direction's thread holds the socket too: the RST leaves when it lets go.
            SockRef::from(to).set_linger(Some(Duration::ZERO)).unwrap();
            drop(to.shutdown(Shutdown::Read));
            drop(from.shutdown(Shutdown::Both));
            return;
        }
        if sent.is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Write));
}

fn more_until_quiet(from: &TcpStream, quiet: Duration, bytes: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    from.set_read_timeout(Some(quiet)).unwrap();
    loop {
        match (&*from).read(&mut buffer) {
            Ok(read @ 1..) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    from.set_read_timeout(None).unwrap();
}
