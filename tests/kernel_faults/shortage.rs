//! This machine has run out of something: no host is to blame, and nothing is wrong once there is some again.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use smtp_pool::testing::TestServer;
use smtp_pool::{Host, SendError, SmtpSender};

use super::common::*;
use super::judge::*;
use super::network::set_ipv4;
use super::role::Server;

/// A limit on this process, until it is dropped.
struct Limited {
    resource: Resource,
    before: Rlimit,
}

impl Limited {
    fn to(resource: Resource, limit: u64) -> Self {
        let before = getrlimit(resource);
        setrlimit(resource, Rlimit { current: Some(limit), ..before }).unwrap();
        Self { resource, before }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        setrlimit(self.resource, self.before).unwrap();
    }
}

/// The failure of a send that found nothing of this machine left for it.
#[track_caller]
fn fails_here(sender: &SmtpSender, id: &str) -> SendError {
    let error = fails(sender, &content(id), (RB, S0), AT_ONCE);
    assert!(error.to_string().contains("this machine ran out"), "{error}");
    not_blamed(sender);
    error
}

/// No descriptor but `spare` can be opened.
fn few_descriptors(spare: u64) -> Limited {
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    // The one that this list is read by is free again afterwards.
    let stays = |file: &fs::DirEntry| fs::read_link(file.path()).is_ok_and(|target| !target.ends_with("fd"));
    let taken = files.filter(stays).map(|file| file.file_name().to_str().unwrap().parse().unwrap());
    let taken: Vec<u64> = taken.collect();
    // The lowest free numbers are given out first, and a gap counts as room.
    let mut limit = 0;
    let mut room = spare;
    while taken.contains(&limit) || room > 0 {
        room -= u64::from(!taken.contains(&limit));
        limit += 1;
    }
    Limited::to(Resource::Nofile, limit)
}

/// K18.
pub fn without_descriptors_no_host_is_blamed() {
    let mut server = Server::start();
    let by_address = sender(server.host()).max_size(2).build().unwrap();
    let by_name = sender(Host::plain("localhost").port(server.port())).build().unwrap();
    let none = few_descriptors(0);
    for sender in [&by_address, &by_name] {
        fails_here(sender, "1@descriptors");
        fails_here(sender, "1@descriptors");
    }
    drop(none);
    for sender in [&by_address, &by_name] {
        recovers(sender, |id| server.accepted(id));
    }
    // What stands needs none.
    let none = few_descriptors(0);
    send(&by_address, "2@descriptors").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(by_address.status().created, 1);
    drop(none);
    assert_eq!((server.accepted("1@descriptors"), server.accepted("2@descriptors")), (0, 1));
}

/// K18: the system's roots are read for the first connection with TLS, and what was missing then must not be missing for ever.
pub fn roots_that_could_not_be_read_are_read_later() {
    let roots = std::env::var("SSL_CERT_FILE").unwrap();
    let mut server = Server::with_certificate_in(&roots);
    let sender = sender(Host::implicit_tls("127.0.0.1").port(server.port())).build().unwrap();
    let none = few_descriptors(0);
    fails_here(&sender, "1@roots");
    drop(none);
    recovers(&sender, |id| server.accepted(id));
    assert_eq!(server.accepted("1@roots"), 0);
    fs::remove_file(roots).unwrap();
}

/// Connections from every port there is, to this server.
fn every_port(addr: SocketAddr) -> Vec<TcpStream> {
    let mut taken = Vec::new();
    loop {
        match TcpStream::connect(addr) {
            Ok(stream) => taken.push(stream),
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

/// K19.
pub fn without_ports_no_host_is_blamed() {
    let server = TestServer::start();
    set_ipv4("ip_local_port_range", "40000 40005");
    let anywhere = sender(plain(&server)).build().unwrap();
    let bound = sender(plain(&server).local_address(Ipv4Addr::LOCALHOST.into())).build().unwrap();
    for sender in [&anywhere, &bound] {
        let taken = every_port(server.addr());
        assert!(!taken.is_empty());
        fails_here(sender, "1@ports");
        // A RST leaves no TIME_WAIT behind that would hold the port.
        for stream in taken {
            socket2::SockRef::from(&stream).set_linger(Some(ms(0))).unwrap();
        }
        recovers(sender, |id| server.accepted(id));
        let idle = sender.status().counts.idle;
        assert_eq!(idle, 1, "and the connection is kept");
    }
    assert_eq!(server.accepted("1@ports"), 0);
}

/// K20.
pub fn without_threads_build_says_so_and_sending_goes_on() {
    let mut server = Server::start();
    let no_threads = || Limited::to(Resource::Nproc, 0);
    // This world lets none start, or the test shows nothing.
    let none = no_threads();
    assert!(std::thread::Builder::new().spawn(|| ()).is_err());
    let error = sender(server.host()).build().unwrap_err();
    assert!(error.to_string().contains("maintenance thread"), "{error}");
    drop(none);

    let by_address = sender(server.host()).max_size(2).min_idle(1).build().unwrap();
    let by_name = sender(Host::plain("localhost").port(server.port())).build().unwrap();
    let by_tls = sender(Host::implicit_tls("127.0.0.1").port(server.port())).build().unwrap();
    let none = no_threads();
    // The caller's own thread does all the work of a send.
    send(&by_address, "1@threads").unwrap_or_else(|error| panic!("{error}"));
    // Except that the system's resolver has no deadline, and so needs a thread of its own.
    fails_here(&by_name, "2@threads");
    // And that reading the system's roots cannot be interrupted.
    fails_here(&by_tls, "3@threads");
    drop(none);
    for sender in [&by_address, &by_name] {
        recovers(sender, |id| server.accepted(id));
    }
    assert_eq!((server.accepted("1@threads"), server.accepted("2@threads")), (1, 0));
}
