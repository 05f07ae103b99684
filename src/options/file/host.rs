//! A host from a file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_core::de::{Deserialize, Deserializer};
use serde_core::ser::{Serialize, Serializer};

use super::node::{Node, check_keys, shown_key};
use super::setting::{self, Setting};
use crate::options::{Credentials, Host, Login, OptionsError, Security, url};

const NAMES: &[&str] = &[
    "url",
    "name",
    "security",
    "port",
    "credentials",
    "auth_mechanisms",
    "hello_name",
    "priority",
    "weight",
    "max_connections",
    "root_certificate",
    "local_address",
    "single_round_trip",
    "dangerous_plaintext_auth",
    "dangerous_accept_invalid_certificates",
    "dangerous_accept_invalid_hostnames",
];

const CREDENTIALS: &[&str] = &["user", "password"];

/// Stands in a written file for what is not written.
const REDACTED: &str = "redacted";

/// Stands there for what the program supplies, and no file can.
const SUPPLIED: &str = "supplied";

/// Whether `key` belongs into an entry of `hosts`; a URL does.
pub(super) fn has_key(key: &str) -> bool {
    NAMES.contains(&key) || CREDENTIALS.contains(&key) || key.contains('@')
}

/// The error for a host's `key` among the pool's.
pub(super) fn misplaced(key: &str) -> OptionsError {
    let place = if CREDENTIALS.contains(&key) { "hosts[…].credentials" } else { "hosts[…]" };
    OptionsError::new(shown_key(key), "not a setting of the pool", format!("belongs into {place}"))
}

/// The host, or one that `build()` refuses with the reason.
///
/// An error at once would be the reader's: `toml` and others put the line beside it, and in a host's line may be its password.
pub(super) fn read(node: &Node) -> Host {
    let host = match node {
        Node::Text(text) => url::parse(text),
        Node::Table(entries) => from_table(entries),
        _ => Err(OptionsError::new("", "not shown", "must be a table or a URL")),
    };
    host.unwrap_or_else(|fault| Host { fault: Some(Box::new(fault)), ..Host::starttls("") })
}

fn from_table(entries: &[(String, Node)]) -> Result<Host, OptionsError> {
    check_keys(entries, NAMES)?;
    let mut host = named(|name| entries.iter().find(|(key, _)| key == name).map(|(_, node)| node))?;
    for (key, node) in entries {
        match key.as_str() {
            "port" => host.port = setting::read(key, node)?,
            "credentials" if host.login.is_some() => {
                return Err(OptionsError::new(key, "beside a URL that has some", "must be given once"));
            }
            "credentials" => host.login = Some(Login::Fixed(credentials(node).map_err(|fault| fault.within(key))?)),
            "auth_mechanisms" => host.auth_mechanisms = setting::read(key, node)?,
            "hello_name" => host.hello_name = Some(setting::read(key, node)?),
            "priority" => host.priority = setting::read(key, node)?,
            "weight" => host.weight = setting::read(key, node)?,
            "max_connections" => host.max_connections = setting::read(key, node)?,
            "root_certificate" => host.root_certificates = certificates(key, node)?,
            "local_address" => host.local_address = Some(setting::read(key, node)?),
            "single_round_trip" => host.single_round_trip = setting::read(key, node)?,
            "dangerous_plaintext_auth" => host.plaintext_auth = setting::read(key, node)?,
            "dangerous_accept_invalid_certificates" => host.accept_invalid_certificates = setting::read(key, node)?,
            "dangerous_accept_invalid_hostnames" => host.accept_invalid_hostnames = setting::read(key, node)?,
            // Those of `named`.
            _ => {}
        }
    }
    Ok(host)
}

/// The host by what says which one it is.
fn named<'n>(get: impl Fn(&str) -> Option<&'n Node>) -> Result<Host, OptionsError> {
    if let Some(text) = get("url") {
        let of_the_url = ["name", "security", "port"].into_iter().find(|key| get(key).is_some());
        if let Some(key) = of_the_url {
            return Err(OptionsError::new(key, "beside a URL", "must be said by the URL"));
        }
        let text = text.text().ok_or_else(|| OptionsError::new("url", "not shown", "must be text"))?;
        return url::parse(text);
    }
    let name = get("name").ok_or_else(|| OptionsError::new("name", "missing", "must be given, or else `url`"))?;
    // A name of the wrong type may be anything.
    let name = name.text().ok_or_else(|| OptionsError::new("name", "not shown", "must be text"))?;
    let security = get("security").map_or(Ok(Security::StartTls), |node| setting::read("security", node))?;
    Ok(match security {
        Security::StartTls => Host::starttls(name),
        Security::ImplicitTls => Host::implicit_tls(name),
        Security::Plain => Host::plain(name),
        Security::OpportunisticStartTls => Host::dangerous_opportunistic_starttls(name),
    })
}

fn credentials(node: &Node) -> Result<Credentials, OptionsError> {
    let entries = match node {
        Node::Table(entries) => entries,
        Node::Text(text) if **text == REDACTED => {
            let rule =
                "must be a table of user and password; a file that was written by the program does not hold them";
            return Err(OptionsError::new("", REDACTED, rule));
        }
        Node::Text(text) if **text == SUPPLIED => {
            let rule =
                "must be a table of user and password; a supplier is set by the program, with `credentials_with`";
            return Err(OptionsError::new("", SUPPLIED, rule));
        }
        _ => return Err(OptionsError::new("", "not shown", "must be a table of user and password")),
    };
    check_keys(entries, CREDENTIALS)?;
    let part = |name: &str| {
        let (_, node) = entries
            .iter()
            .find(|(key, _)| key == name)
            .ok_or_else(|| OptionsError::new(name, "missing", "must be given with the other one"))?;
        node.text().ok_or_else(|| OptionsError::new(name, "not shown", "must be text, in quotes"))
    };
    let (user, password) = (part("user")?, part("password")?);
    Ok(Credentials::new(user, password))
}

fn certificates(key: &str, node: &Node) -> Result<Vec<Vec<u8>>, OptionsError> {
    let texts = match node {
        Node::List(texts) => texts.as_slice(),
        lone => std::slice::from_ref(lone),
    };
    let text = |node: &Node| {
        let wrong = || OptionsError::new(key, node.shown(), "must be a certificate as PEM text, or a list of them");
        node.text().map(|text| text.as_bytes().to_vec()).ok_or_else(wrong)
    };
    texts.iter().map(text).collect()
}

/// Every key that differs from its default, and no secret.
pub(super) fn write(host: &Host) -> Node {
    // No `..`, so a field cannot be left out.
    let Host {
        name,
        port,
        security,
        login,
        auth_mechanisms,
        hello_name,
        priority,
        weight,
        max_connections,
        root_certificates,
        client_identity,
        local_address,
        single_round_trip,
        plaintext_auth,
        accept_invalid_certificates,
        accept_invalid_hostnames,
        fault: _,
    } = host;
    let usual = Host::starttls("");
    let redacted = || Node::from_text(REDACTED);
    let certificates: Vec<_> = root_certificates.iter().map(|bytes| Node::from_text(pem(bytes))).collect();
    let entries = [
        ("name", Some(name.write())),
        ("security", Some(security.write())),
        ("port", Some(port.write())),
        ("credentials", login.as_ref().map(|login| Node::from_text(shown(login)))),
        ("auth_mechanisms", (*auth_mechanisms != usual.auth_mechanisms).then(|| auth_mechanisms.write())),
        ("hello_name", hello_name.as_ref().map(Setting::write)),
        ("priority", (*priority != usual.priority).then(|| priority.write())),
        ("weight", (*weight != usual.weight).then(|| weight.write())),
        ("max_connections", max_connections.as_ref().map(Setting::write)),
        ("root_certificate", (!certificates.is_empty()).then_some(Node::List(certificates))),
        // Has no place in a file. The key is written all the same: read again, it is refused, and not forgotten.
        ("client_identity", client_identity.as_ref().map(|_| redacted())),
        ("local_address", local_address.as_ref().map(Setting::write)),
        ("single_round_trip", single_round_trip.then(|| single_round_trip.write())),
        ("dangerous_plaintext_auth", plaintext_auth.then(|| plaintext_auth.write())),
        (
            "dangerous_accept_invalid_certificates",
            accept_invalid_certificates.then(|| accept_invalid_certificates.write()),
        ),
        ("dangerous_accept_invalid_hostnames", accept_invalid_hostnames.then(|| accept_invalid_hostnames.write())),
    ];
    Node::Table(entries.into_iter().filter_map(|(key, node)| Some((key.to_owned(), node?))).collect())
}

const fn shown(login: &Login) -> &'static str {
    match login {
        Login::Fixed(_) => REDACTED,
        Login::Supplied(_) => SUPPLIED,
    }
}

/// The text of a certificate, which may have been given as DER.
fn pem(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(
        |_| {
            let mut lines = String::new();
            for (index, character) in BASE64.encode(bytes).chars().enumerate() {
                if index > 0 && index % 64 == 0 {
                    lines.push('\n');
                }
                lines.push(character);
            }
            format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
        },
        str::to_owned,
    )
}

/// Read from a URL or a table. Never fails on what a reader could read: what is wrong with it is said by `build()`, with its place
/// (`hosts[1].weight`).
impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Node::deserialize(deserializer).map(|node| read(&node))
    }
}

/// Written as a table, without user, password and client identity.
impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self).serialize(serializer)
    }
}
