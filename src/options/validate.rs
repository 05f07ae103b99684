//! The checks of `build()`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use native_tls::{Certificate, Identity};

use super::host::ClientIdentity;
use super::{Host, Login, OptionsError, PoolOptions};

/// The longest duration an option takes: longer than any process lives, short enough to be added to any instant.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The longest domain name, [RFC 5321 §4.5.3.1.2](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1.2).
const LONGEST_NAME: usize = 255;

/// Whether every option can be used.
pub(crate) fn validate(options: &PoolOptions) -> Result<(), OptionsError> {
    let PoolOptions {
        hosts,
        max_size,
        min_idle,
        refill_delay,
        acquire_timeout,
        connect_timeout,
        auth_timeout,
        send_timeout,
        final_reply_timeout,
        idle_timeout,
        max_lifetime,
        max_messages_per_connection,
        keepalive_interval,
        keepalive_command: _,
        reconnect_cooldown,
        max_reconnect_cooldown,
        backoff: _,
        jitter,
        max_retries: _,
        retry_base_delay,
        ambiguity_boundary: _,
    } = options;

    at_least_one("max_size", *max_size)?;
    if min_idle > max_size {
        return Err(OptionsError::new(
            "min_idle",
            min_idle.to_string(),
            format!("must not be above max_size, {max_size}"),
        ));
    }
    for (option, value) in [
        ("acquire_timeout", Some(*acquire_timeout)),
        ("connect_timeout", Some(*connect_timeout)),
        ("auth_timeout", Some(*auth_timeout)),
        ("send_timeout", Some(*send_timeout)),
        ("final_reply_timeout", Some(*final_reply_timeout)),
        ("idle_timeout", *idle_timeout),
        ("max_lifetime", *max_lifetime),
        ("keepalive_interval", *keepalive_interval),
        ("reconnect_cooldown", Some(*reconnect_cooldown)),
        ("max_reconnect_cooldown", Some(*max_reconnect_cooldown)),
        ("retry_base_delay", Some(*retry_base_delay)),
    ] {
        if value == Some(Duration::ZERO) {
            return Err(OptionsError::new(option, "0 s", "must be longer than zero"));
        }
        not_too_long(option, value.unwrap_or_default())?;
    }
    not_too_long("refill_delay", *refill_delay)?;
    if reconnect_cooldown > max_reconnect_cooldown {
        let rule = format!("must not be above max_reconnect_cooldown, {max_reconnect_cooldown:?}");
        return Err(OptionsError::new("reconnect_cooldown", format!("{reconnect_cooldown:?}"), rule));
    }
    if *max_messages_per_connection == Some(0) {
        return Err(OptionsError::new("max_messages_per_connection", "0", "must be at least 1, or none"));
    }
    if !(0.0..=1.0).contains(jitter) {
        return Err(OptionsError::new("jitter", jitter.to_string(), "must be a ratio from 0 to 1"));
    }
    if hosts.is_empty() {
        return Err(OptionsError::new("hosts", "empty", "must name at least one host"));
    }
    for (index, host) in hosts.iter().enumerate() {
        validate_host(index, host)?;
        if let Some(twin) = hosts[..index].iter().position(|other| is_same_server(other, host)) {
            let rule = format!("must differ from hosts[{twin}]: one identity for each server");
            return Err(OptionsError::new(format!("hosts[{index}]"), format!("{}:{}", host.name, host.port), rule));
        }
    }
    Ok(())
}

fn is_same_server(one: &Host, other: &Host) -> bool {
    one.port == other.port
        && one.name.trim_end_matches('.').eq_ignore_ascii_case(other.name.trim_end_matches('.'))
        && one.local_address == other.local_address
}

fn validate_host(index: usize, host: &Host) -> Result<(), OptionsError> {
    #[cfg(feature = "serde")]
    if let Some(fault) = &host.fault {
        return Err(fault.as_ref().clone().within(&format!("hosts[{index}]")));
    }
    let wrong =
        |field: &str, value: String, rule: &str| OptionsError::new(format!("hosts[{index}].{field}"), value, rule);

    if host.name.contains(['/', '@']) {
        // Perhaps a URL, with a password in it.
        return Err(wrong("name", "not shown".to_owned(), "must be a host name or address, not a URL"));
    }
    let is_word =
        |name: &str| !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_word(&host.name) {
        return Err(wrong(
            "name",
            format!("{:?}", host.name),
            "must be a host name or address, ASCII, without blanks and controls",
        ));
    }
    if host.port == 0 {
        return Err(wrong("port", "0".to_owned(), "must be at least 1"));
    }
    if host.weight == 0 {
        return Err(wrong("weight", "0".to_owned(), "must be at least 1"));
    }
    if host.max_connections == Some(0) {
        return Err(wrong("max_connections", "0".to_owned(), "must be at least 1"));
    }
    if let Some(name) = &host.hello_name {
        validated_hello_name(name).ok_or_else(|| {
            wrong("hello_name", format!("{name:?}"), "must be a domain name, or an address literal in brackets")
        })?;
    }
    if host.login.is_some() && host.auth_mechanisms.is_empty() {
        return Err(wrong("auth_mechanisms", "empty".to_owned(), "must name at least one when there are credentials"));
    }
    if let Some(Login::Fixed(credentials)) = &host.login {
        credentials.check().map_err(|error| error.within(&format!("hosts[{index}]")))?;
    }
    for certificate in &host.root_certificates {
        parse_certificate(certificate)
            .map_err(|error| wrong("root_certificate", error.to_string(), "must be a certificate, PEM or DER"))?;
    }
    if let Some(ClientIdentity { certificates, key }) = &host.client_identity {
        Identity::from_pkcs8(certificates, key).map_err(|error| {
            wrong("client_identity", error.to_string(), "must be a PEM chain and its PKCS #8 PEM key")
        })?;
    }
    Ok(())
}

/// A certificate from PEM, or else DER.
pub(crate) fn parse_certificate(bytes: &[u8]) -> native_tls::Result<Certificate> {
    Certificate::from_pem(bytes).or_else(|error| Certificate::from_der(bytes).map_err(|_| error))
}

/// `name` if it can follow EHLO: a `Domain` or an `address-literal` of
/// [RFC 5321 §4.1.2](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.2), so that nothing can be smuggled into the command.
fn validated_hello_name(name: &str) -> Option<&str> {
    let is_literal = || {
        let literal = name.strip_prefix('[')?.strip_suffix(']')?;
        let v6 = literal.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).map(|_| &literal[5..]);
        Some(v6.map_or_else(|| literal.parse::<Ipv4Addr>().is_ok(), |v6| v6.parse::<Ipv6Addr>().is_ok()))
    };
    let is_domain = || {
        // Underscores are not in the grammar, but in many host names.
        let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(is_label_byte)
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
    };
    (name.len() <= LONGEST_NAME && (is_literal() == Some(true) || is_domain())).then_some(name)
}

fn at_least_one(option: &str, value: usize) -> Result<(), OptionsError> {
    if value == 0 { Err(OptionsError::new(option, "0", "must be at least 1")) } else { Ok(()) }
}

fn not_too_long(option: &str, value: Duration) -> Result<(), OptionsError> {
    if value > LONGEST {
        return Err(OptionsError::new(option, format!("{value:?}"), "must not be longer than ten years"));
    }
    Ok(())
}
