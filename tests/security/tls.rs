//! SEC-10, SEC-24: who answers is who the certificate names, or gets nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use native_tls::{Identity, TlsAcceptor};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use smtp_pool::testing::{CertificateKind, Security, TestServer};
use smtp_pool::{FailureKind, Host, SendStage};

use crate::common::*;
use crate::{assert_nothing_given, with_secret};

#[test]
fn sec_10_certificates_are_verified() {
    use CertificateKind::{Expired, NotYetValid, SelfSigned, UnknownAuthority, Valid, WrongName};
    for security in [Security::StartTls, Security::ImplicitTls] {
        let host_for = |server: &TestServer, name: &str| {
            let host = if security == Security::StartTls { Host::starttls(name) } else { Host::implicit_tls(name) };
            host.port(server.port()).credentials("user", "secret")
        };
        for (kind, by_name, by_certificate) in [
            (Valid, false, false),
            (WrongName, true, false),
            (Expired, false, true),
            (NotYetValid, false, true),
            (SelfSigned, false, true),
            (UnknownAuthority, false, true),
        ] {
            let attempt = |names: bool, certificates: bool, trusted: bool| {
                let server = with_secret(security).certificate(kind).start();
                let mut host = host_for(&server, "127.0.0.1")
                    .dangerous_accept_invalid_hostnames(names)
                    .dangerous_accept_invalid_certificates(certificates);
                if trusted {
                    host = host.root_certificate(server.root_certificate_pem());
                }
                let result = send(&sender(host).build().unwrap(), "certificate@security");
                match &result {
                    Ok(_) => assert!(server.messages()[0].was_encrypted()),
                    Err(error) => {
                        assert_eq!(
                            (error.kind(), error.stage()),
                            (FailureKind::PermanentFailure, SendStage::Connected),
                            "{kind:?}: {error}"
                        );
                        assert!(!error.is_retry_safe());
                        assert_nothing_given(&server, error);
                    }
                }
                result.is_ok()
            };
            let is_good = !by_name && !by_certificate;
            assert_eq!(attempt(false, false, true), is_good, "{kind:?}, {security:?}");
            assert!(!attempt(false, false, false), "{kind:?}, {security:?}: nobody vouches for it");
            assert_eq!(attempt(true, false, true), is_good || by_name, "{kind:?}, {security:?}, any name");
            assert!(attempt(false, true, true) || by_name, "{kind:?}, {security:?}, any certificate");
            assert!(attempt(true, true, false), "{kind:?}, {security:?}, anything");
        }
        // The right chain under another name of the same machine; and the names that are in it.
        let server = with_secret(security).start();
        let trusted = |name: &str| host_for(&server, name).root_certificate(server.root_certificate_pem());
        send(&sender(trusted("localhost")).build().unwrap(), "name@security").unwrap();
        send(&sender(trusted("127.0.0.1")).build().unwrap(), "ip@security").unwrap();
    }
}

/// A certificate with its key.
struct Certified {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Certified {
    fn authority() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = authority_params("the authority").self_signed(&key).unwrap();
        Self { certificate, key }
    }

    fn sign(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        Self { certificate, key }
    }

    /// A TLS server's side with this certificate, and `chain` behind it.
    fn acceptor(&self, chain: &[&Self]) -> TlsAcceptor {
        let chain: String = chain.iter().map(|link| link.certificate.pem()).collect();
        let pem = self.certificate.pem() + &chain;
        TlsAcceptor::new(Identity::from_pkcs8(pem.as_bytes(), self.key.serialize_pem().as_bytes()).unwrap()).unwrap()
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// An alternative name.
#[derive(Debug, Clone, Copy)]
enum San {
    Dns(&'static str),
    Ip([u8; 4]),
}

fn leaf_params(common_name: &str, names: &[San]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = names
        .iter()
        .map(|name| match *name {
            San::Dns(name) => SanType::DnsName(name.try_into().unwrap()),
            San::Ip(address) => SanType::IpAddress(IpAddr::from(address)),
        })
        .collect();
    params
}

/// Serves one client, who may mean somebody else, and says what it was given: in the clear, and inside TLS if there was any.
fn serve(listener: &TcpListener, acceptor: &TlsAcceptor, security: Security) -> (String, Option<String>) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut in_the_clear = String::new();
    if security == Security::StartTls {
        stream.write_all(b"220 here\r\n").unwrap();
        for reply in ["250-here\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n", "220 go\r\n"] {
            read_line(&mut stream, &mut in_the_clear);
            stream.write_all(reply.as_bytes()).unwrap();
        }
    }
    let Ok(stream) = acceptor.accept(stream) else { return (in_the_clear, None) };
    let mut stream = BufReader::new(stream);
    let mut inside = String::new();
    let greeting: &[u8] = if security == Security::ImplicitTls { b"220 here\r\n" } else { b"" };
    let mut goes_on = stream.get_mut().write_all(greeting).is_ok();
    let mut content = false;
    while goes_on {
        let before = inside.len();
        if !stream.read_line(&mut inside).is_ok_and(|read| read > 0) {
            break;
        }
        let line = &inside[before..];
        if content && line != ".\r\n" {
            continue;
        }
        let reply = match line.get(..4) {
            Some("AUTH") => "235 known\r\n",
            Some("DATA") => "354 go\r\n",
            Some("EHLO") => "250-here\r\n250 AUTH PLAIN\r\n",
            _ => "250 fine\r\n",
        };
        content = reply.starts_with("354");
        goes_on = stream.get_mut().write_all(reply.as_bytes()).is_ok();
    }
    (in_the_clear, Some(inside))
}

/// A byte at a time: what comes behind the line is TLS.
fn read_line(stream: &mut TcpStream, line: &mut String) {
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() > 0 {
        line.push(char::from(byte[0]));
        if byte[0] == b'\n' {
            return;
        }
    }
}

/// Whether a client who means `name` sends its mail to a server with this certificate. If not, it gave nothing away.
fn is_taken_for(name: &str, security: Security, root: &Certified, acceptor: &TlsAcceptor) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = if security == Security::StartTls { Host::starttls(name) } else { Host::implicit_tls(name) };
    let host = host.port(port).credentials("user", "secret").root_certificate(root.certificate.pem());
    thread::scope(|scope| {
        let (given, seen) = mpsc::channel();
        scope.spawn(move || given.send(serve(&listener, acceptor, security)).unwrap());
        let sender = sender(host).build().unwrap();
        let result = send(&sender, "names@security");
        drop(sender);
        let (in_the_clear, inside) = seen.recv_timeout(PATIENCE).unwrap();
        assert!(!in_the_clear.contains("AUTH") && !in_the_clear.contains("MAIL"), "{in_the_clear}");
        match &result {
            Ok(_) => assert!(inside.unwrap().contains("names@security")),
            Err(error) => {
                let expected = (FailureKind::PermanentFailure, SendStage::Connected);
                assert_eq!((error.kind(), error.stage()), expected, "{error}");
                assert_eq!(inside.unwrap_or_default(), "", "{error}");
            }
        }
        result.is_ok()
    })
}

/// The authority is the right one each time, and so is the address: what counts is the name the user wrote.
#[test]
fn sec_10_sec_24_the_name_in_the_certificate_is_the_one_that_was_asked_for() {
    use San::{Dns, Ip};
    let authority = Certified::authority();
    let cases: [(&str, &str, &[San], bool); 20] = [
        ("localhost", "x", &[Dns("localhost")], true),
        ("localhost.", "x", &[Dns("localhost")], true),
        ("LocalHost", "x", &[Dns("localhost")], true),
        ("localhost", "x", &[Dns("a.example"), Dns("localhost")], true),
        ("127.0.0.1", "x", &[Ip([127, 0, 0, 1])], true),
        ("127.0.0.1", "x", &[Dns("localhost"), Ip([127, 0, 0, 2]), Ip([127, 0, 0, 1])], true),
        // SEC-24: whoever holds the address that a name leads to is not thereby the name.
        ("localhost", "x", &[Ip([127, 0, 0, 1])], false),
        ("127.0.0.1", "x", &[Dns("localhost")], false),
        ("127.0.0.1", "x", &[Ip([127, 0, 0, 2])], false),
        // An address is no DNS name, whatever it looks like.
        ("127.0.0.1", "x", &[Dns("127.0.0.1")], false),
        ("127.0.0.1", "127.0.0.1", &[Dns("localhost")], false),
        ("localhost", "x", &[Dns("localhost.example")], false),
        ("localhost", "x", &[Dns("xlocalhost")], false),
        ("localhost", "x", &[Dns("local")], false),
        ("localhost", "x", &[Dns("*")], false),
        ("localhost", "x", &[Dns("*.localhost")], false),
        ("localhost", "x", &[Dns("l*")], false),
        // With alternative names, the common name says nothing (RFC 6125 §6.4.4).
        ("localhost", "localhost", &[Dns("a.example")], false),
        ("localhost", "localhost", &[Dns("a.example"), Ip([127, 0, 0, 1])], false),
        ("127.0.0.1", "127.0.0.1", &[], false),
    ];
    for security in [Security::StartTls, Security::ImplicitTls] {
        for (name, common_name, names, expected) in cases {
            let leaf = authority.sign(leaf_params(common_name, names));
            let taken = is_taken_for(name, security, &authority, &leaf.acceptor(&[&authority]));
            assert_eq!(taken, expected, "{name}, certificate for {common_name} {names:?}, {security:?}");
        }
    }
}

#[test]
fn sec_10_the_chain_leads_to_a_trusted_root_over_authorities_alone() {
    let root = Certified::authority();
    let localhost = || leaf_params("x", &[San::Dns("localhost")]);
    let mut formerly = authority_params("was once an authority");
    formerly.not_before = rcgen::date_time_ymd(2001, 1, 1);
    formerly.not_after = rcgen::date_time_ymd(2002, 1, 1);
    for security in [Security::StartTls, Security::ImplicitTls] {
        for (what, params, expected) in [
            ("an authority in between", authority_params("in between"), true),
            // Else anybody with a certificate could make one for any name.
            ("a leaf that signs", leaf_params("leaf", &[San::Dns("a.example")]), false),
            ("an expired authority", formerly.clone(), false),
        ] {
            let between = root.sign(params);
            let leaf = between.sign(localhost());
            let taken = is_taken_for("localhost", security, &root, &leaf.acceptor(&[&between, &root]));
            assert_eq!(taken, expected, "{what}, {security:?}");
        }
        // The root trusted is this host's alone: one that the server sends along is none.
        let other = Certified::authority();
        let leaf = other.sign(localhost());
        assert!(!is_taken_for("localhost", security, &root, &leaf.acceptor(&[&other])), "{security:?}");
        assert!(is_taken_for("localhost", security, &other, &leaf.acceptor(&[&other])), "{security:?}");
    }
}
