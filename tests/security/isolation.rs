//! SEC-21 to SEC-23: one pool's sessions, secrets and look-ups are nobody else's.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use smtp_pool::testing::{Security, TestServer};
use smtp_pool::{Credentials, Host, SmtpSender};

use crate::common::*;

fn users(count: usize) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("user{number}"), format!("secret{number}"))).collect()
}

fn server_of(security: Security, users: &[(String, String)]) -> TestServer {
    let server = TestServer::builder().security(security).auth_before_tls(true).record(false);
    users.iter().fold(server, |server, (user, password)| server.credentials(user, password)).start()
}

/// The user at the beginning of each Message-ID is the one who sent it, by the server's own account. Returns how many there were.
fn assert_each_has_its_user(server: &TestServer) -> usize {
    let messages = server.messages();
    for message in &messages {
        let id = message.message_id().unwrap();
        let owner = id.trim_start_matches('<').split('.').next().unwrap();
        assert_eq!(message.authenticated_as(), Some(owner), "{id}");
    }
    messages.len()
}

/// 10 000 messages of two users to one server, from many threads, over sessions that come and go.
#[test]
fn sec_21_each_pools_messages_are_its_own_users() {
    const THREADS: usize = 4;
    const SENDS: usize = 1_250;
    let users = users(2);
    let server = server_of(Security::StartTls, &users);
    thread::scope(|scope| {
        for (user, password) in &users {
            let host = starttls(&server).credentials(user, password);
            let sender = sender(host).max_size(3).max_messages_per_connection(100).build().unwrap();
            for thread in 0..THREADS {
                let sender = sender.clone();
                scope.spawn(move || {
                    for number in 0..SENDS {
                        send(&sender, &format!("{user}.{thread}.{number}@isolation")).unwrap();
                    }
                });
            }
        }
    });
    assert_eq!(assert_each_has_its_user(&server), 2 * THREADS * SENDS);
    assert!(server.connections_accepted() > 2 * 3, "sessions came and went");
}

/// In one pool, two names of one server are two hosts with a user each: a message is sent as the user of the host its receipt names.
#[test]
fn sec_21_each_hosts_messages_are_its_own_users() {
    let users = users(2);
    let server = server_of(Security::ImplicitTls, &users);
    let names = ["127.0.0.1", "localhost"];
    let hosts = names.iter().zip(&users).map(|(name, (user, password))| {
        Host::implicit_tls(*name)
            .port(server.port())
            .root_certificate(server.root_certificate_pem())
            .credentials(user, password)
    });
    let sender = hosts.fold(SmtpSender::builder(), |builder, host| builder.host(host)).max_size(4).build().unwrap();
    let receipts: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let sender = sender.clone();
                scope.spawn(move || {
                    let ids = (0..50).map(|number| format!("{thread}.{number}@isolation"));
                    ids.map(|id| (send(&sender, &id).unwrap().endpoint().to_string(), id)).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let messages = server.messages();
    assert_eq!((receipts.len(), messages.len()), (400, 400));
    let mut seen = [0, 0];
    for (endpoint, id) in receipts {
        let index = names.iter().position(|name| endpoint.starts_with(name)).unwrap();
        let message = messages.iter().find(|message| message.message_id() == Some(&format!("<{id}>"))).unwrap();
        assert_eq!(message.authenticated_as(), Some(&*users[index].0), "{id} by {endpoint}");
        seen[index] += 1;
    }
    assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
}

/// Two pools begin as the same user, and one of them goes from user to user: the messages of each, and the sessions of each, stay its own.
#[test]
fn sec_21_a_rotation_leaves_no_identity_behind_and_touches_no_other_pool() {
    const ROTATIONS: usize = 20;
    let users = users(ROTATIONS + 1);
    let server = server_of(Security::ImplicitTls, &users);
    let host = || implicit_tls(&server).credentials(&users[0].0, &users[0].1);
    let (rotating, steady) = (sender(host()).max_size(3).build().unwrap(), sender(host()).max_size(3).build().unwrap());
    let published = AtomicUsize::new(0);
    thread::scope(|scope| {
        let done = Flag::default();
        let is_done = done.reader();
        for thread in 0..4 {
            let (rotating, steady, published, is_done) = (&rotating, &steady, &published, is_done.clone());
            scope.spawn(move || {
                for number in 0.. {
                    let oldest = published.load(SeqCst);
                    send(rotating, &format!("{oldest}.rotating.{thread}.{number}@isolation")).unwrap();
                    send(steady, &format!("0.steady.{thread}.{number}@isolation")).unwrap();
                    if is_done() {
                        return;
                    }
                }
            });
        }
        for (rotation, (user, password)) in users.iter().enumerate().skip(1) {
            rotating.rotate_credentials("127.0.0.1", Credentials::new(user, password)).unwrap();
            published.store(rotation, SeqCst);
            eventually("mail goes on, as the new user", || {
                server.messages().iter().any(|message| message.authenticated_as() == Some(user.as_str()))
            });
        }
        drop(done);
    });
    let mut seen = vec![0; users.len()];
    for message in server.messages() {
        let [oldest, pool, ..] = message.message_id().unwrap()[1..].split('.').collect::<Vec<_>>()[..] else {
            panic!()
        };
        let (oldest, user) = (oldest.parse::<usize>().unwrap(), message.authenticated_as().unwrap());
        let session: usize = user.strip_prefix("user").unwrap().parse().unwrap();
        match pool {
            "steady" => assert_eq!(session, 0, "{message:?}"),
            _ => {
                assert!(session >= oldest, "{message:?} went over a session of {user}");
                seen[session] += 1;
            }
        }
    }
    assert!(seen[1..].iter().all(|&count| count > 0), "{seen:?}");
}

/// To the same port of the same server: encrypted where that is asked for, authenticated where there is a user, whoever came before.
#[test]
fn sec_21_a_session_without_tls_or_user_serves_nobody_who_asked_for_them() {
    // Takes mail from anybody, so that what is missing is not made good by a refusal.
    let server = TestServer::builder().security(Security::StartTls).start();
    let (bare, encrypted) = (plain(&server), starttls(&server));
    let pools = [(bare, false), (encrypted, true)].map(|(host, tls)| (sender(host).build().unwrap(), tls));
    for round in 0..50 {
        for (pool, tls) in &pools {
            let id = format!("{tls}.{round}@isolation");
            send(pool, &id).unwrap();
            let message = server.messages().pop().unwrap();
            assert_eq!((message.message_id(), message.was_encrypted()), (Some(&*format!("<{id}>")), *tls));
        }
    }
    assert_eq!(server.connections_accepted(), 2, "each has its session and keeps it");
}

/// What runs in a process of its own: the test's binary once more, told by the environment that it is the child.
#[cfg(target_os = "linux")]
mod alone {
    use std::env;
    use std::process::{Command, Output};

    const ROLE: &str = "SMTP_POOL_TEST_CHILD";

    /// The child's argument, if this process is the child.
    pub(super) fn role() -> Option<String> {
        env::var(ROLE).ok()
    }

    /// Runs the test `name` as the child; `wrapper` is a program and the arguments before the child's own.
    pub(super) fn run(name: &str, role: &str, wrapper: &[&str]) -> Output {
        let program = env::current_exe().unwrap();
        let mut command = match wrapper.split_first() {
            None => Command::new(program),
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(program);
                command
            }
        };
        let output = command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role).output();
        output.unwrap()
    }

    #[track_caller]
    pub(super) fn assert_success(output: &Output) {
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    }
}

/// A search through this process's own memory.
#[cfg(target_os = "linux")]
mod memory {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::fs::FileExt as _;

    /// What is looked for, kept in a form that the search does not take for it.
    #[derive(Clone)]
    pub(super) struct Needle {
        masked: Vec<u8>,
    }

    const MASK: u8 = 0xa5;

    impl Needle {
        pub(super) fn new(secret: &[u8]) -> Self {
            assert!(secret.len() >= 12);
            Self { masked: secret.iter().map(|byte| byte ^ MASK).collect() }
        }

        fn is_at(&self, bytes: &[u8]) -> bool {
            bytes.len() >= self.masked.len()
                && bytes.iter().zip(&self.masked).all(|(byte, masked)| byte ^ MASK == *masked)
        }

        /// How often it stands in memory that can be written to: heap, stacks, static data.
        pub(super) fn count(&self) -> usize {
            const BLOCK: usize = 1 << 20;
            let memory = File::open("/proc/self/mem").unwrap();
            let mut maps = String::with_capacity(BLOCK);
            File::open("/proc/self/maps").unwrap().read_to_string(&mut maps).unwrap();
            let mut buffer = vec![0; BLOCK];
            let own = buffer.as_ptr_range();
            let own = own.start as u64..own.end as u64;
            let mut found = 0;
            for map in maps.lines() {
                let mut words = map.split_whitespace();
                let (range, rights) = (words.next().unwrap(), words.next().unwrap());
                if !rights.starts_with("rw") || map.ends_with("[vvar]") {
                    continue;
                }
                let (start, end) = range.split_once('-').unwrap();
                let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
                let mut at = start;
                while at < end {
                    let length = usize::try_from(end - at).unwrap().min(BLOCK);
                    if memory.read_exact_at(&mut buffer[..length], at).is_err() {
                        break;
                    }
                    let first = self.masked[0] ^ MASK;
                    let places = memchr::memchr_iter(first, &buffer[..length]);
                    // Not what the search itself has just copied.
                    found += places
                        .filter(|&place| self.is_at(&buffer[place..]) && !own.contains(&(at + place as u64)))
                        .count();
                    if length < BLOCK {
                        break;
                    }
                    // What lies across two blocks is seen in the next.
                    at += (length - self.masked.len() + 1) as u64;
                }
            }
            // Nor may the next search find it here.
            zeroize::Zeroize::zeroize(&mut buffer);
            found
        }
    }
}

#[cfg(target_os = "linux")]
mod sec_22_memory {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use lettre::transport::smtp::authentication::Mechanism;
    use zeroize::{Zeroize as _, Zeroizing};

    use super::memory::Needle;
    use super::*;

    /// A secret that stands nowhere in the binary.
    fn made(seed: u64, length: usize) -> Zeroizing<String> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut secret = Zeroizing::new(String::with_capacity(length));
        (0..length).for_each(|_| secret.push(random.alphanumeric()));
        secret
    }

    // Longer than what a test allocates otherwise: what is given back is taken for the next that has the same size.
    fn user() -> Zeroizing<String> {
        made(0x5ec22, 150)
    }

    fn password() -> Zeroizing<String> {
        made(0x5ec23, 220)
    }

    /// In the parent: a server that knows the secret. Its own memory is none of the child's.
    #[test]
    fn sec_22_no_secret_stays_in_memory() {
        if let Some(role) = alone::role() {
            return in_the_child(&role);
        }
        for (mechanism, ways) in [
            (Mechanism::Plain, &["setters", "url"][..]),
            (Mechanism::Login, &["setters"]),
            (Mechanism::Xoauth2, &["url"]),
        ] {
            for way in ways {
                let server = TestServer::builder()
                    .security(Security::ImplicitTls)
                    .auth_mechanisms(&[&mechanism.to_string()])
                    .credentials(user().as_str(), password().as_str())
                    .start();
                let role =
                    format!("{way} {} {mechanism} {}", server.port(), BASE64.encode(server.root_certificate_pem()));
                let output = alone::run("isolation::sec_22_memory::sec_22_no_secret_stays_in_memory", &role, &[]);
                alone::assert_success(&output);
                assert!(server.messages().iter().all(|message| message.authenticated_as() == Some(&user())));
                assert_eq!(server.messages().len(), 3, "{mechanism} {way}");
            }
        }
    }

    fn in_the_child(role: &str) {
        let [way, port, mechanism, root] = role.split(' ').collect::<Vec<_>>()[..] else { panic!("{role}") };
        let root = BASE64.decode(root).unwrap();
        let mechanism = match mechanism {
            "PLAIN" => Mechanism::Plain,
            "LOGIN" => Mechanism::Login,
            _ => Mechanism::Xoauth2,
        };
        // The password itself, and what AUTH makes of it.
        let encoded = |text: &str| Zeroizing::new(BASE64.encode(text));
        let joined = |parts: &[&str]| {
            let mut whole = Zeroizing::new(String::with_capacity(600));
            parts.iter().for_each(|part| whole.push_str(part));
            whole
        };
        let response = encoded(&joined(&["\0", &user(), "\0", &password()]));
        let bearer = encoded(&joined(&["user=", &user(), "\x01auth=Bearer ", &password(), "\x01\x01"]));
        // Their ends, since an allocator writes into the beginning of what it takes back; and a piece from before, because a buffer that
        // was too small and has grown leaves behind what it held without its end.
        let pieces_of = |name, text: &str, is_kept: bool| {
            let [early, end] = [48, text.len() - 14].map(|at| Needle::new(&text.as_bytes()[at..at + 14]));
            [(name, "early", early, is_kept), (name, "at the end", end, is_kept)]
        };
        let needles = [
            pieces_of("the password", &password(), true),
            pieces_of("the user", &user(), true),
            pieces_of("the password in base64", &encoded(&password()), false),
            pieces_of("the user in base64", &encoded(&user()), false),
            pieces_of("the response of PLAIN", &response, false),
            pieces_of("the response of XOAUTH2", &bearer, false),
        ]
        .concat();
        assert!(needles[8..].iter().all(|(.., needle, _)| needle.count() > 0), "what is there is found");
        drop((response, bearer));
        // As soon as possible after each step: what is given back is soon overwritten by something else.
        let holds = |when: &str, copies: usize| {
            for (name, piece, needle, is_kept) in &needles {
                assert_eq!(needle.count(), if *is_kept { copies } else { 0 }, "{name}, {piece}, {when}");
            }
        };
        holds("before anything was done", 0);

        let host = match way {
            "url" => {
                let mut url = joined(&["smtps://", &user(), ":", &password(), "@127.0.0.1:", port]);
                let host: Host = url.parse().unwrap();
                // The text is the caller's own.
                url.zeroize();
                host
            }
            _ => {
                let moved = |mut secret: Zeroizing<String>| std::mem::take(&mut *secret);
                Host::implicit_tls("127.0.0.1")
                    .port(port.parse().unwrap())
                    .credentials(moved(user()), moved(password()))
            }
        };
        holds("in a host", 1);
        let host = host.root_certificate(root).auth_mechanisms([mechanism]);
        let sender = sender(host).max_messages_per_connection(2).build().unwrap();
        // Its options keep none: there is one place, where a rotation finds them.
        holds("in a sender", 1);
        sender.warm_up().unwrap();
        holds("after AUTH", 1);
        for number in 0..3 {
            send(&sender, &format!("{number}@memory")).unwrap();
        }
        holds("after three messages and another AUTH", 1);
        if mechanism != Mechanism::Login {
            sender.rotate_credentials("127.0.0.1", Credentials::new("somebody", "something else")).unwrap();
            holds("after a rotation", 0);
        }
        sender.shutdown(PATIENCE);
        drop(sender);
        holds("after the sender was dropped", 0);
    }
}

#[cfg(target_os = "linux")]
mod sec_23_name_server {
    use std::fs;
    use std::net::UdpSocket;
    use std::process::Command;

    use smtp_pool::SendOptions;

    use super::*;

    const HOSTS: usize = 6;
    const THREADS: usize = 10;
    const SENDS: usize = 100;

    /// The system's own resolver is what asks, so this needs root: for port 53, and for a `/etc/resolv.conf` that only the child sees.
    #[test]
    fn sec_23_a_name_server_that_never_answers_costs_a_thread_for_each_host() {
        if alone::role().is_some() {
            return in_the_child();
        }
        let may_mount = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
        let Some(deaf) = UdpSocket::bind("127.53.53.53:53").ok().filter(|_| may_mount) else {
            eprintln!("NOT RUN: needs port 53 and a mount namespace, so root");
            return;
        };
        let file = std::env::temp_dir().join(format!("smtp-pool-resolv-{}", std::process::id()));
        fs::write(&file, "nameserver 127.53.53.53\noptions timeout:30 attempts:5\n").unwrap();
        let mount = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
        let wrapper = ["unshare", "--mount", "sh", "-c", mount, "sh", file.to_str().unwrap()];
        let name =
            "isolation::sec_23_name_server::sec_23_a_name_server_that_never_answers_costs_a_thread_for_each_host";
        let output = alone::run(name, "dns", &wrapper);
        fs::remove_file(&file).unwrap();
        alone::assert_success(&output);
        deaf.set_nonblocking(true).unwrap();
        assert!(deaf.recv(&mut [0; 512]).is_ok(), "it was asked");
    }

    fn in_the_child() {
        let hosts = (0..HOSTS).map(|number| Host::plain(format!("host{number}.hangs.example")));
        let sender = hosts.fold(SmtpSender::builder(), |builder, host| builder.host(host));
        let sender = sender.max_retries(0).reconnect_cooldown(ms(1)).max_reconnect_cooldown(ms(1)).build().unwrap();
        let before = threads("");
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..SENDS {
                        let deadline = now() + ms(20);
                        let error = send_to(&sender, "x@dns", 1, &SendOptions::new().deadline(deadline)).unwrap_err();
                        assert!(error.is_retry_safe(), "{error}");
                        // A bound on hanging, not on the pace of a busy machine.
                        assert!(now() < deadline + PATIENCE / 2, "{error}");
                    }
                });
            }
        });
        let lookups = threads("smtp-pool-resol");
        assert!((1..=HOSTS).contains(&lookups), "{lookups} look-ups hang");
        // A thread that was joined may still be on its way out of the kernel's list.
        eventually("nothing but the look-ups is left", || threads("") <= before + lookups);
    }

    /// The threads of this process whose name begins so, as far as the kernel keeps names.
    fn threads(name: &str) -> usize {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks
            .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.starts_with(name)))
            .count()
    }
}
