//! The private network: what it drops, what it knows of sockets, how it is set.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::ms;

/// Runs a tool of the system, which must succeed.
#[track_caller]
pub fn run(tool: &str, arguments: &[&str]) {
    let output = Command::new(tool).args(arguments).output().unwrap_or_else(|error| panic!("{tool}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {text}");
}

/// Packets that do not arrive, until this is dropped.
pub struct Firewall(());

impl Firewall {
    /// Rules of nftables, for packets that come in.
    #[track_caller]
    pub fn with(rules: &[String]) -> Self {
        let mut script = "table inet fault {\n chain input {\n type filter hook input priority 0;\n".to_owned();
        for rule in rules {
            script.push_str(rule);
            script.push('\n');
        }
        script.push_str("}\n}\n");
        run("nft", &[&script]);
        Self(())
    }

    /// Everything to and from this port vanishes without a word.
    #[track_caller]
    pub fn black_hole(port: u16) -> Self {
        Self::with(&[format!("tcp dport {port} drop"), format!("tcp sport {port} drop")])
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        run("nft", &["delete table inet fault"]);
    }
}

/// Sets `net.ipv4.NAME` of this network.
pub fn set_ipv4(name: &str, value: &str) {
    fs::write(Path::new("/proc/sys/net/ipv4").join(name), value).unwrap();
}

/// Puts a file of this content in the place of another one, for the processes of this world alone.
pub fn replace_file(path: &str, content: &str) {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    // A file system of its own, so that nothing is left of it outside.
    let folder = PathBuf::from("/mnt");
    if number == 0 {
        run("mount", &["-t", "tmpfs", "none", "/mnt"]);
    }
    let ours = folder.join(number.to_string());
    fs::write(&ours, content).unwrap();
    run("mount", &["--bind", &ours.to_string_lossy(), path]);
}

/// State of a socket in `/proc/net/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Established,
    TimeWait,
    Other(u8),
}

/// A line of `/proc/net/tcp`.
struct Socket {
    local_port: u16,
    remote_port: u16,
    state: State,
    /// Bytes that were sent and not acknowledged.
    unacknowledged: u64,
}

fn sockets() -> Vec<Socket> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
    let socket = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let state = match u8::from_str_radix(fields[3], 16).unwrap() {
            1 => State::Established,
            6 => State::TimeWait,
            other => State::Other(other),
        };
        let unacknowledged = u64::from_str_radix(fields[4].split(':').next().unwrap(), 16).unwrap();
        Socket { local_port: port(fields[1]), remote_port: port(fields[2]), state, unacknowledged }
    };
    table.lines().skip(1).map(socket).collect()
}

/// Our ends of connections to this port, with their states; those that nobody holds any more included.
pub fn clients_of(port: u16) -> Vec<State> {
    sockets().into_iter().filter(|socket| socket.remote_port == port).map(|socket| socket.state).collect()
}

/// Bytes that the server at this port has sent, and our kernel has not acknowledged.
pub fn unacknowledged_by_us(port: u16) -> u64 {
    sockets().iter().filter(|socket| socket.local_port == port).map(|socket| socket.unacknowledged).sum()
}

/// A listener at `addr` whose queue holds one connection at most.
pub fn listen_shortly(addr: SocketAddr) -> socket2::Socket {
    let listener = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None).unwrap();
    listener.bind(&addr.into()).unwrap();
    listener.listen(0).unwrap();
    listener
}

/// Fills the queue of such a listener: whoever connects after these waits.
pub fn crowd_out(listener: &socket2::Socket) -> Vec<TcpStream> {
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let mut crowd = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, ms(100)) {
        crowd.push(stream);
        assert!(crowd.len() < 100, "the backlog has no bound here");
    }
    crowd
}
