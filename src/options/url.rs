//! A host from a URL.

use std::str::FromStr;

use lettre::transport::smtp::authentication::Mechanism;
use percent_encoding::percent_decode_str;
use url::Url;
use zeroize::Zeroizing;

use super::host::{Host, Security};
use super::{Credentials, Login, OptionsError};

pub(super) fn parse(text: &str) -> Result<Host, OptionsError> {
    // The text may hold a password, so no error repeats it; and the parser of URLs is not shown it, because it leaves copies behind that
    // nobody overwrites.
    let Parts { scheme, user_info, rest } = split(text)?;
    let url = Url::parse(&format!("{scheme}://{rest}"))
        .map_err(|error| OptionsError::new("url", error.to_string(), "must be a URL"))?;
    let mut host = match scheme {
        "smtp" => Host::starttls(name_of(&url)?),
        _ => Host::implicit_tls(name_of(&url)?),
    };
    if let Some(port) = url.port() {
        host.port = port;
    }
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        let rule = "must have no path and no fragment; in user and password, write / ? # as %2F %3F %23";
        return Err(OptionsError::new("url", url.path(), rule));
    }
    host.login = credentials(user_info)?.map(Login::Fixed);
    for (key, value) in url.query_pairs() {
        apply(&mut host, &key, &value)?;
    }
    Ok(host)
}

struct Parts<'t> {
    scheme: &'static str,
    user_info: &'t str,
    /// Name, port and all that is behind them.
    rest: &'t str,
}

fn split(text: &str) -> Result<Parts<'_>, OptionsError> {
    let wrong = |value: &str, rule: &str| OptionsError::new("url", value, rule);
    let rule = "must begin with smtp:// or smtps://";
    // Without the slashes it may be the user's name that looks like a scheme.
    let (scheme, behind) = text.trim().split_once("://").ok_or_else(|| wrong("not shown", rule))?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "smtp" => "smtp",
        "smtps" => "smtps",
        other if other.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            return Err(wrong(&format!("{other}://"), rule));
        }
        _ => return Err(wrong("not shown", rule)),
    };
    let (authority, tail) = behind.split_at(behind.find(['/', '?', '#']).unwrap_or(behind.len()));
    if tail.contains('@') {
        // The rest of a password with a character in it that ends the authority.
        let rule = "must hold no @ behind the first / ? #; in user and password, write / ? # as %2F %3F %23";
        return Err(wrong("not shown", rule));
    }
    // Of several @ the last one ends the user's part, as browsers read it.
    let name = authority.rfind('@').map_or(0, |at| at + 1);
    Ok(Parts { scheme, user_info: authority[..name].strip_suffix('@').unwrap_or_default(), rest: &behind[name..] })
}

fn credentials(user_info: &str) -> Result<Option<Credentials>, OptionsError> {
    match user_info.split_once(':').unwrap_or((user_info, "")) {
        ("", "") => Ok(None),
        (user, password) if !user.is_empty() && !password.is_empty() => {
            Ok(Some(Credentials::new(decoded("user", user)?, decoded("password", password)?)))
        }
        _ => Err(OptionsError::new("url", "half of the credentials", "needs user and password, or neither")),
    }
}

fn name_of(url: &Url) -> Result<String, OptionsError> {
    match url.host_str() {
        Some(name) if !name.is_empty() => Ok(name.trim_matches(['[', ']']).to_owned()),
        _ => Err(OptionsError::new("url", "without a host name", "must name a host")),
    }
}

/// `text` with its escapes undone, in a buffer that does not grow: each time it did, it would leave a copy behind.
fn decoded(part: &str, text: &str) -> Result<String, OptionsError> {
    let wrong = |rule: &str| OptionsError::new(format!("url.{part}"), "not shown", rule);
    if text.contains(char::is_control) {
        return Err(wrong("must have its control characters escaped"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    bytes.extend(percent_decode_str(text));
    String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        wrong("must be UTF-8 after percent-decoding")
    })
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
        _ => return Err(OptionsError::new("url", format!("?{}=", key.escape_debug()), PARAMETERS)),
    }
    Ok(())
}

/// What a URL may say of a host, as a rule that one which says something else breaks.
const PARAMETERS: &str =
    "must be tls, priority, weight, max_connections, hello_name, auth, single_round_trip or dangerous_plaintext_auth";

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

pub(super) fn mechanism(name: &str) -> Option<Mechanism> {
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
        let odd = Host::starttls("a.example").credentials("us er@b", "p:@\u{e4}");
        assert_eq!(" SMTP://us er@b:p:@\u{e4}@a.example\n".parse::<Host>().unwrap(), odd, "as a browser reads it");
        for nobody in ["smtp://@a.example", "smtp://:@a.example"] {
            assert_eq!(nobody.parse::<Host>().unwrap(), Host::starttls("a.example"), "{nobody}");
        }
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
            ("smtp://user:can\nary@a.example", "url.password"),
            ("smtp://user:@a.example", "url"),
            ("user:canary://@a.example", "url"),
            ("smtp:user:canary@a.example", "url"),
            ("smtp://user:/canary@a.example", "url"),
            ("smtp://user:canary@a.example:99999", "url"),
        ] {
            let error = url.parse::<Host>().unwrap_err();
            assert_eq!(error.option(), option, "{url}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
    #[test]
    fn an_error_about_a_url_can_be_logged_and_no_text_is_read_two_ways() {
        for (url, value) in [
            ("smtp://a.example?%1b[31m=1", "?\\u{1b}[31m="),
            ("smtp://a.example?a%0d%0ab=1", "?a\\r\\nb="),
            ("smtp://a.example?%e2%80%aekey=1", "?\\u{202e}key="),
            ("smtp://a.example?weight=%1b", "\"\\u{1b}\""),
        ] {
            assert_eq!(url.parse::<Host>().unwrap_err().value(), value, "{url}");
        }
        // What a lenient reader might take for another host, or for a name with more in it.
        for url in ["smtp://[::1", "smtp://a b", "smtp:a@b", "smtp:///a", "smtp://a#@b", "smtp://a/@b", "smtp://a?@b"] {
            let host = url.parse::<Host>();
            assert!(host.is_err(), "{url}: {host:?}");
        }
        assert_eq!(
            "smtp://a%0d%0ab".parse::<Host>().unwrap(),
            Host::starttls("a%0d%0ab"),
            "nothing is decoded in a name"
        );
        assert_eq!(
            "smtp://a\tb\n.example".parse::<Host>().unwrap(),
            Host::starttls("ab.example"),
            "as URLs are read everywhere"
        );
    }
}
