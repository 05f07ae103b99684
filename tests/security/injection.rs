//! SEC-03 to SEC-06: nothing that a caller passes on from somebody else becomes a command or a parameter.

use lettre::address::Envelope;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Mechanism;
use lettre::{Address, Message};
use smtp_pool::testing::{Security, TestServer};
use smtp_pool::{FailureKind, Host, PoolOptions, SendError, SendOptions, SendStage, SmtpSender};

use crate::common::{self, *};

const HOSTILE: [&str; 17] = [
    "a\r\nRCPT TO:<evil",
    "a\nb",
    "a\rb",
    "a\0b",
    "a\u{1}b",
    "a\u{7f}b",
    "a>b",
    "a<b",
    "a b",
    "\"a\r\nb\"",
    "\"a\"> SIZE=1 <\"b",
    "a> BODY=8BITMIME <b",
    // Servers differ on what a quotation mark or a backslash means anywhere but in a local part that is quoted as a whole: to Postfix
    // this bracket closes the path, and what follows are parameters.
    "a\\\"> SIZE=1 ENVID=Q\"",
    "a\\>b",
    "a\"b> SIZE=1 \"c",
    "\"a\"b> SIZE=1 \"c\"",
    "\"a\\\\\"> SIZE=1 \"",
];

type Door = fn(&SmtpSender, &Envelope) -> Result<(), SendError>;

/// Everything that takes an envelope.
const DOORS: [(&str, Door); 4] = [
    ("send_raw", |sender, envelope| sender.send_raw(envelope, b"x\r\n").map(drop)),
    ("send_with", |sender, envelope| sender.send_with(envelope, b"x\r\n", &SendOptions::new()).map(drop)),
    ("lease", |sender, envelope| sender.lease()?.send_raw(envelope, b"x\r\n").map(drop)),
    ("lettre::Transport", |sender, envelope| lettre::Transport::send_raw(sender, envelope, b"x\r\n").map(drop)),
];

fn assert_refused_here(error: &SendError, place: &str) {
    assert_eq!(
        (error.kind(), error.stage()),
        (FailureKind::PermanentFailure, SendStage::Authenticated),
        "{place}: {error}"
    );
    assert!(!error.is_retry_safe(), "{place}");
    assert!(!error.to_string().contains(char::is_control), "{place}: {error}");
}

#[test]
fn sec_03_no_address_leaves_its_command() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    send(&sender, "warm@security").unwrap();
    let before = server.transcript(1).client_bytes();
    // No control character either, wherever it stands.
    let controls = (0..=0x1f).chain([0x7f]).map(char::from);
    let hostile: Vec<String> = HOSTILE
        .map(str::to_owned)
        .into_iter()
        .chain(controls.flat_map(|c| [format!("{c}a"), format!("a{c}b"), format!("a{c}"), format!("\"a{c}b\"")]))
        .collect();
    for hostile in &hostile {
        let good: Address = "good@example.com".parse().unwrap();
        for address in [Address::new_dangerous(hostile, "example.com"), Address::new_dangerous("user", hostile)] {
            for envelope in [
                Envelope::new(Some(address.clone()), vec![good.clone()]).unwrap(),
                Envelope::new(Some(good.clone()), vec![address.clone()]).unwrap(),
                Envelope::new(Some(good.clone()), vec![good.clone(), address.clone()]).unwrap(),
                Envelope::new(None, vec![address.clone()]).unwrap(),
            ] {
                for (door, send) in DOORS {
                    assert_refused_here(&send(&sender, &envelope).unwrap_err(), door);
                }
                // lettre makes no message with such an address in its header, but takes any envelope.
                let mailbox = Mailbox::new(None, good.clone());
                let message = Message::builder().from(mailbox.clone()).to(mailbox).envelope(envelope);
                let message = message.body("x".to_owned()).unwrap();
                assert_refused_here(&sender.send(&message).unwrap_err(), "send");
                let by_trait = lettre::Transport::send(&sender, &message).unwrap_err();
                assert_refused_here(&by_trait, "lettre::Transport::send");
            }
        }
    }
    assert_eq!(server.transcript(1).client_bytes(), before, "not a byte of it left");
    send(&sender, "after@security").unwrap();
    assert_eq!((server.connections_accepted(), server.messages().len()), (1, 2), "the connection is kept");
    assert_eq!(server.violations(), [""; 0]);
}

#[cfg(feature = "r2d2")]
#[test]
fn sec_03_nor_under_a_plain_r2d2_pool() {
    let server = TestServer::start();
    let mut options = PoolOptions::default();
    options.hosts.push(plain(&server));
    let manager = smtp_pool::SmtpConnectionManager::from_options(options).unwrap();
    let pool = r2d2::Pool::builder().max_size(1).test_on_check_out(false).build(manager).unwrap();
    pool.get().unwrap().send_with(&envelope(1), &content("warm@security"), &SendOptions::new()).unwrap();
    let before = server.transcript(1).client_bytes();
    for hostile in HOSTILE {
        let envelope = Envelope::new(None, vec![Address::new_dangerous(hostile, "example.com")]).unwrap();
        let refused = pool.get().unwrap().send_with(&envelope, b"x\r\n", &SendOptions::new()).unwrap_err();
        assert_refused_here(&refused, "r2d2");
    }
    assert_eq!(server.transcript(1).client_bytes(), before, "not a byte of it left");
}

/// What `build()` refuses never meets a server.
#[test]
fn sec_03_sec_04_no_setting_of_a_host_reaches_a_command_unchecked() {
    let server = TestServer::start();
    let port = server.port();
    let constructors: [fn(String) -> Host; 4] = [
        |name| Host::starttls(name),
        |name| Host::implicit_tls(name),
        |name| Host::plain(name),
        |name| Host::dangerous_opportunistic_starttls(name),
    ];
    let hostile = [
        "a\r\nMAIL FROM:<e>",
        "a\nb",
        "a\rb",
        "a\0b",
        "a b",
        "a\tb",
        "a\u{7f}b",
        "\u{560d}\u{560a}",
        "",
        "[127.0.0.1]\r\n",
    ];
    let mut refused = 0;
    for text in hostile {
        for constructor in constructors {
            for (host, option) in [
                (constructor(text.to_owned()).port(port), "hosts[0].name"),
                (constructor("127.0.0.1".to_owned()).port(port).hello_name(text), "hosts[0].hello_name"),
            ] {
                let mut options = PoolOptions::default();
                options.hosts.push(host.clone());
                let errors = [
                    SmtpSender::builder().host(host.clone()).build().unwrap_err(),
                    SmtpSender::from_options(options.clone()).unwrap_err(),
                    #[cfg(feature = "r2d2")]
                    smtp_pool::SmtpConnectionManager::from_options(options).unwrap_err(),
                ];
                for error in errors {
                    assert_eq!(error.option(), option, "{text:?}");
                    assert!(!format!("{error} {error:?}").contains(char::is_control), "{text:?}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused >= hostile.len() * 16);
    // The same by URL: nothing that is escaped in a name is unescaped, and what a parameter brings is checked like a setter's value.
    let escaped = ["a%0d%0aMAIL", "a%0ab", "a%00b", "a%20b", "%e5%98%8d%e5%98%8a"];
    for text in escaped {
        let by_parameter = format!("smtp://127.0.0.1:{port}?tls=none&hello_name={text}");
        let host: Host = by_parameter.parse().unwrap();
        assert_eq!(sender(host).build().unwrap_err().option(), "hosts[0].hello_name", "{text}");
        let by_name = format!("smtp://{text}:{port}?tls=none");
        if let Ok(host) = by_name.parse::<Host>() {
            let shown = format!("{host:?}");
            assert!(shown.contains(&format!("name: {text:?}")), "{shown}");
        }
        let by_key = format!("smtp://127.0.0.1:{port}?tls=none&{text}=1");
        let error = by_key.parse::<Host>().unwrap_err();
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
    for text in ["smtp://127.0.0.1\r\n:25", "smtp://a b", "smtp://a\tb", "smtp://a\u{7f}b", "smtp://a<b", "smtp://a\0b"]
    {
        // What the URL parser takes it has escaped or left out; `Debug` would show the rest with a backslash.
        if let Ok(host) = text.parse::<Host>() {
            let shown = format!("{host:?}");
            assert!(!shown.contains('\\') && !shown.contains("a b") && !shown.contains("a<b"), "{shown}");
        }
    }
    assert_eq!(server.connections_accepted(), 0, "nobody was connected to");
}

#[test]
fn sec_03_credentials_stay_inside_their_base64() {
    let (user, password) = ("user\r\nMAIL FROM:<evil@example.com>", "p\r\nRSET\r\n\t \u{7f}\n.\r\n=");
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::Xoauth2] {
        let server = TestServer::builder()
            .security(Security::ImplicitTls)
            .auth_mechanisms(&[&mechanism.to_string()])
            .credentials(user, password)
            .start();
        let host = implicit_tls(&server).credentials(user, password).auth_mechanisms([mechanism]);
        send(&sender(host).build().unwrap(), "base64@security").unwrap();
        assert_eq!(server.messages()[0].authenticated_as(), Some(user), "{mechanism}");
        assert!(!said(&server, 1, "RSET"), "{mechanism}");
        assert_eq!(server.violations(), [""; 0]);
    }
}

/// Offered a server's whole menu, MAIL and RCPT say nothing but numbers and words of ours, and what they say is true: the size is what
/// the server counts.
#[test]
fn sec_05_parameters_are_numbers_and_words_of_ours() {
    let server = TestServer::builder()
        .size(Some(10_000))
        .dsn(true)
        .chunking(true)
        .ehlo_keyword("REQUIRETLS")
        .ehlo_keyword("BINARYMIME")
        .ehlo_keyword("MT-PRIORITY MIXER")
        .ehlo_keyword("DELIVERBY 1")
        .ehlo_keyword("FUTURERELEASE 1 2")
        .start();
    let sender = sender(plain(&server)).build().unwrap();
    let addresses =
        ["a@example.com", "ü@example.com", "\"a b>\"@example.com", "a+SIZE=1@example.com", "a=b@xn--bcher-kva.example"];
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let length = random.usize(..400);
        let content: Vec<u8> = (0..length).map(|_| *random.choice(b"ab.\r\n\xfc\xe4 =<>").unwrap()).collect();
        let content = if random.bool() { content } else { content.into_iter().filter(u8::is_ascii).collect() };
        let (from, to) = (*random.choice(addresses.iter()).unwrap(), *random.choice(addresses.iter()).unwrap());
        let envelope = Envelope::new(Some(from.parse().unwrap()), vec![to.parse().unwrap()]).unwrap();
        sender.send_raw(&envelope, &content).unwrap();
        let stored = server.messages().pop().unwrap();
        let mut expected = vec![format!("SIZE={}", stored.content().len())];
        if !content.is_ascii() {
            expected.push("BODY=8BITMIME".to_owned());
        }
        if !(from.is_ascii() && to.is_ascii()) {
            expected.push("SMTPUTF8".to_owned());
        }
        assert_eq!(stored.mail_parameters(), expected, "seed {seed}");
        assert!(stored.recipient_parameters().iter().all(Vec::is_empty), "seed {seed}");
        assert_eq!((stored.mail_from(), stored.recipients()), (from, &[to.to_owned()][..]), "seed {seed}");
    }
    assert_eq!(server.violations(), [""; 0]);
}

/// RFC 1870 counts the octets that travel: a message that only fits with bare line ends does not fit.
#[test]
fn sec_05_a_size_is_that_of_the_normalised_content() {
    let server = TestServer::builder().size(Some(100)).start();
    let sender = sender(plain(&server)).build().unwrap();
    let lines = |count: usize, end: &str| format!("123456{end}").repeat(count).into_bytes();
    for end in ["\n", "\r", "\r\n"] {
        // 12 lines of 8 octets fit, 13 do not.
        let fits = lines(12, end);
        sender.send_raw(&envelope(1), &fits).unwrap();
        assert_eq!(server.messages().pop().unwrap().mail_parameters()[0], "SIZE=96");
        let error = sender.send_raw(&envelope(1), &lines(13, end)).unwrap_err();
        assert_refused_here(&error, "size");
        assert!(error.to_string().contains("104"), "{error}");
    }
    assert_eq!(server.messages().len(), 3);
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn sec_06_no_character_is_cut_to_a_line_end() {
    // Their low bytes are CR and LF.
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    for character in ['\u{10a}', '\u{10d}', '\u{560a}', '\u{560d}', '\u{760a}', '\u{760d}', '\u{1f60a}', '\u{1f60d}'] {
        let address = Address::new_dangerous(format!("a{character}RCPT"), "example.com");
        let envelope = Envelope::new(Some(address.clone()), vec![address]).unwrap();
        sender.send_raw(&envelope, format!("x{character}.{character}\r\n").as_bytes()).unwrap();
        let stored = server.messages().pop().unwrap();
        assert_eq!(stored.mail_from(), format!("a{character}RCPT@example.com"));
        assert_eq!(stored.content(), format!("x{character}.{character}\r\n").as_bytes());
        let error = common::sender(plain(&server).hello_name(format!("a{character}b.example"))).build().unwrap_err();
        assert_eq!(error.option(), "hosts[0].hello_name");
    }
    assert_eq!(server.violations(), [""; 0]);
    // In credentials they are just characters.
    let password = "p\u{560a}w\u{560d}d";
    let server = TestServer::builder().security(Security::ImplicitTls).credentials("us\u{10a}er", password).start();
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        let host = implicit_tls(&server).credentials("us\u{10a}er", password).auth_mechanisms([mechanism]);
        send(&common::sender(host).build().unwrap(), "utf8@security").unwrap();
    }
}

/// Of characters no low byte is taken anywhere: what casts to a byte is a number of ours (`cast_possible_truncation` sees numbers only).
#[test]
fn sec_06_nothing_is_cast_to_a_byte() {
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            match path.extension() {
                // The embedded server meets no stranger's text but the crate's.
                _ if path.ends_with("testing") => {}
                None if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => {
                    files += 1;
                    let code = std::fs::read_to_string(&path).unwrap();
                    assert!(!code.contains("as u8"), "{}", path.display());
                }
                _ => {}
            }
        }
    }
    assert!(files > 50, "{files} files were looked through");
}
