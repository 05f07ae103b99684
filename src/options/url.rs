//! A host from a URL.

use std::str::FromStr;

use lettre::transport::smtp::authentication::Mechanism;
use percent_encoding::percent_decode_str;
use url::Url;

use super::host::{Host, Security};
use super::{OptionsError, Secret};

pub(super) fn parse(text: &str) -> Result<Host, OptionsError> {
    // The text may hold a password, so no error repeats it.
    let url = Url::parse(text).map_err(|error| OptionsError::new("url", error.to_string(), "must be a URL"))?;
    let mut host = match url.scheme() {
        "smtp" => Host::starttls(name_of(&url)?),
        "smtps" => Host::implicit_tls(name_of(&url)?),
        // Without the slashes it may be the user's name that was taken for a scheme.
        other => {
            let value = if text.contains("://") { format!("{other}://") } else { "not shown".to_owned() };
            return Err(OptionsError::new("url", value, "must begin with smtp:// or smtps://"));
        }
    };
    if let Some(port) = url.port() {
        host.port = port;
    }
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        let rule = "must have no path and no fragment; in user and password, write / ? # as %2F %3F %23";
        return Err(OptionsError::new("url", shown(url.path()), rule));
    }
    match (url.username(), url.password()) {
        ("", None) => {}
        (user, Some(password)) if !user.is_empty() => {
            host.secret = Some(Secret::new(decoded("user", user)?, decoded("password", password)?));
        }
        _ => return Err(OptionsError::new("url", "half of the credentials", "needs user and password, or neither")),
    }
    if url.query().is_some_and(|query| query.contains('@')) {
        let rule = "must hold no @ behind the ?; in user and password, write / ? # as %2F %3F %23";
        return Err(OptionsError::new("url", "not shown", rule));
    }
    for (key, value) in url.query_pairs() {
        apply(&mut host, &key, &value)?;
    }
    Ok(host)
}

/// A part of the URL, unless it may be the rest of a password with a character in it that ends the authority.
fn shown(part: &str) -> &str {
    if part.contains('@') { "not shown" } else { part }
}

fn name_of(url: &Url) -> Result<String, OptionsError> {
    match url.host_str() {
        Some(name) if !name.is_empty() => Ok(name.trim_matches(['[', ']']).to_owned()),
        _ => Err(OptionsError::new("url", "without a host name", "must name a host")),
    }
}

fn decoded(part: &str, text: &str) -> Result<String, OptionsError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| OptionsError::new(format!("url.{part}"), "not shown", "must be UTF-8 after percent-decoding"))
}

fn apply(host: &mut Host, key: &str, value: &str) -> Result<(), OptionsError> {
    let wrong = |rule: &str| OptionsError::new(format!("url.{key}"), format!("{value:?}"), rule);
    match key {
        "tls" => {
            host.security = match (value, host.security) {
                ("required", security) => security,
                ("none", Security::StartTls) => Security::Plain,
                ("opportunistic", Security::StartTls) => Security::OpportunisticStartTls,
                ("none" | "opportunistic", _) => return Err(wrong("must be `required` for smtps://")),
                _ => return Err(wrong("must be `required`, `opportunistic` or `none`")),
            }
        }
        "priority" => host.priority = number(value).ok_or_else(|| wrong("must be a whole number"))?,
        "weight" => host.weight = number(value).ok_or_else(|| wrong("must be a whole number"))?,
        "max_connections" => host.max_connections = Some(number(value).ok_or_else(|| wrong("must be a whole number"))?),
        "hello_name" => host.hello_name = Some(value.to_owned()),
        "auth" => {
            let mechanisms = value.split(',').map(mechanism).collect::<Option<Vec<_>>>();
            host.auth_mechanisms = mechanisms.ok_or_else(|| wrong("must list plain, login, xoauth2"))?;
        }
        "single_round_trip" => {
            host.single_round_trip = value.parse().map_err(|_| wrong("must be `true` or `false`"))?;
        }
        "dangerous_plaintext_auth" => {
            host.plaintext_auth = value.parse().map_err(|_| wrong("must be `true` or `false`"))?;
        }
        _ => return Err(OptionsError::new("url", format!("?{key}="), "is no parameter of a host")),
    }
    Ok(())
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn mechanism(name: &str) -> Option<Mechanism> {
    match name.to_ascii_lowercase().as_str() {
        "plain" => Some(Mechanism::Plain),
        "login" => Some(Mechanism::Login),
        "xoauth2" => Some(Mechanism::Xoauth2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_what_the_setters_say() {
        let url = "smtp://us%65r%40example.com:p%3Ass@relay.example.com:2525?tls=none&priority=10&weight=3&max_connections=4\
                   &hello_name=me.example.com&auth=login,plain&single_round_trip=true&dangerous_plaintext_auth=true";
        let by_setters = Host::plain("relay.example.com")
            .port(2525)
            .credentials("user@example.com", "p:ss")
            .priority(10)
            .weight(3)
            .max_connections(4)
            .hello_name("me.example.com")
            .auth_mechanisms([Mechanism::Login, Mechanism::Plain])
            .single_round_trip(true)
            .dangerous_plaintext_auth(true);
        assert_eq!(url.parse::<Host>().unwrap(), by_setters);
        assert_eq!("smtp://a.example".parse::<Host>().unwrap(), Host::starttls("a.example"));
        assert_eq!("smtps://a.example".parse::<Host>().unwrap(), Host::implicit_tls("a.example"));
        assert_eq!("smtps://[::1]:1465".parse::<Host>().unwrap(), Host::implicit_tls("::1").port(1465));
    }

    #[test]
    fn a_wrong_url_is_named_and_its_secret_is_not() {
        for (url, option) in [
            ("http://user:canary@a.example", "url"),
            ("smtp://user:canary@", "url"),
            ("smtp://:canary@a.example", "url"),
            ("smtp://user@a.example", "url"),
            ("smtp://user:canary@a.example/path", "url"),
            ("smtp://user:canary@a.example?tls=yes", "url.tls"),
            ("smtps://user:canary@a.example?tls=none", "url.tls"),
            ("smtp://user:canary@a.example?weight=-1", "url.weight"),
            ("smtp://user:canary@a.example?single_round_trip=yes", "url.single_round_trip"),
            ("smtp://user:canary@a.example?colour=red", "url"),
            ("smtp://user:canary%ff@a.example", "url.password"),
            ("smtp://user:canary@a.example:99999", "url"),
        ] {
            let error = url.parse::<Host>().unwrap_err();
            assert_eq!(error.option(), option, "{url}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}
