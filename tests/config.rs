//! The same pool from TOML, JSON and YAML; a wrong file is refused by key and rule; a password is nowhere but in the options.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use lettre::transport::smtp::authentication::Mechanism;
use smtp_pool::{AmbiguityBoundary, Backoff, Host, KeepaliveCommand, PoolOptions, SmtpSender};

/// The one of the guide.
const TOML: &str = include_str!("../src/guide/pool.toml");
const JSON: &str = include_str!("config/pool.json");
const YAML: &str = include_str!("config/pool.yaml");

#[derive(Debug, Clone, Copy)]
enum Format {
    Toml,
    Json,
    Yaml,
}

use Format::{Json, Toml, Yaml};

const FORMATS: [Format; 3] = [Toml, Json, Yaml];

impl Format {
    fn read<T: for<'de> serde_core::Deserialize<'de>>(self, text: &str) -> Result<T, Box<dyn Error>> {
        Ok(match self {
            Toml => toml::from_str(text)?,
            Json => serde_json::from_str(text)?,
            Yaml => yaml_serde::from_str(text)?,
        })
    }

    fn write(self, options: &PoolOptions) -> String {
        match self {
            Toml => toml::to_string_pretty(options).unwrap(),
            Json => serde_json::to_string_pretty(options).unwrap(),
            Yaml => yaml_serde::to_string(options).unwrap(),
        }
    }

    /// What an operator sees who starts a program with this file.
    fn start(self, text: &str) -> Result<SmtpSender, Box<dyn Error>> {
        Ok(SmtpSender::from_options(self.read(text)?)?)
    }

    fn complaint(self, text: &str) -> String {
        match self.start(text) {
            // `toml` keeps the whole file in its error, for `Debug` to show: the guide warns of it.
            Err(error) if error.is::<toml::de::Error>() => error.to_string(),
            Err(error) => format!("{error}\n{error:?}"),
            Ok(_) => panic!("{self:?} was taken:\n{text}"),
        }
    }
}

/// By the setters, each away from its default.
fn maximal() -> PoolOptions {
    let (seconds, ms) = (Duration::from_secs, Duration::from_millis);
    let certificate = &TOML[TOML.find("-----BEGIN").unwrap()..TOML.rfind("\"\"\"").unwrap()];
    let mut options = PoolOptions::default();
    options.max_size = 12;
    options.interactive_reserve = 0.5;
    options.min_idle = 2;
    options.refill_delay = ms(500);
    options.acquire_timeout = seconds(5);
    options.connect_timeout = seconds(4);
    options.auth_timeout = seconds(10);
    options.send_timeout = seconds(60);
    options.final_reply_timeout = seconds(600);
    options.idle_timeout = Some(seconds(90));
    options.max_lifetime = None;
    options.max_messages_per_connection = Some(100);
    options.learn_limits = false;
    options.keepalive_interval = Some(seconds(45));
    options.keepalive_command = KeepaliveCommand::Noop;
    options.reconnect_cooldown = seconds(10);
    options.max_reconnect_cooldown = seconds(120);
    options.backoff = Backoff::Fixed;
    options.jitter = 0.1;
    options.max_retries = 3;
    options.retry_base_delay = ms(250);
    options.ambiguity_boundary = AmbiguityBoundary::DataStarted;
    options.hosts = vec![
        Host::implicit_tls("smtp-primary.example.com")
            .port(2465)
            .credentials("smtp-user", "smtp-password")
            .auth_mechanisms([Mechanism::Login, Mechanism::Plain])
            .hello_name("app.example.com")
            .priority(1)
            .weight(3)
            .max_connections(4)
            .root_certificate(certificate)
            .local_address("192.0.2.7".parse().unwrap())
            .single_round_trip(true)
            .dangerous_plaintext_auth(true)
            .dangerous_accept_invalid_certificates(true)
            .dangerous_accept_invalid_hostnames(true),
        Host::starttls("smtp-standby.example.com").port(2525).priority(10).credentials("standby", "standby-password"),
    ];
    options
}

#[test]
fn a_file_says_what_the_setters_say_in_every_format() {
    let expected = maximal();
    for (format, text) in [(Toml, TOML), (Json, JSON), (Yaml, YAML)] {
        let mut options: PoolOptions = format.read(text).unwrap();
        assert_eq!(options, expected, "{format:?}");
        // No thread that would look for the hosts.
        options.min_idle = 0;
        assert!(SmtpSender::from_options(options).is_ok());
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let mut expected = PoolOptions::default();
    expected.hosts = vec![Host::starttls("mail.example.com"), Host::plain("::1")];
    for (format, text) in [
        (Toml, "hosts = [{ name = 'mail.example.com' }, 'smtp://[::1]:25?tls=none']"),
        (Json, r#"{"hosts": [{"name": "mail.example.com"}, {"name": "::1", "security": "plain"}]}"#),
        (Yaml, "hosts:\n- smtp://mail.example.com\n- url: 'smtp://[::1]:25?tls=none'\n"),
    ] {
        assert_eq!(format.read::<PoolOptions>(text).unwrap(), expected, "{format:?}");
        assert!(format.start(text).is_ok());
    }
    for (format, empty) in [(Toml, ""), (Json, "{}"), (Yaml, ""), (Yaml, "# nothing\n")] {
        assert_eq!(format.read::<PoolOptions>(empty).unwrap(), PoolOptions::default(), "{format:?}");
        let complaint = format.complaint(empty);
        assert!(complaint.contains("option `hosts` is empty: must name at least one host"), "{complaint}");
    }
}

#[test]
fn every_security_has_its_name_and_its_port() {
    for (name, expected) in [
        ("starttls", Host::starttls("a.example")),
        ("implicit_tls", Host::implicit_tls("a.example")),
        ("plain", Host::plain("a.example")),
        ("dangerous_opportunistic_starttls", Host::dangerous_opportunistic_starttls("a.example")),
    ] {
        let text = format!("name = 'a.example'\nsecurity = '{name}'");
        assert_eq!(Toml.read::<Host>(&text).unwrap(), expected, "{name}");
    }
}

#[test]
fn a_host_is_a_url_or_a_table_and_what_stands_beside_a_url_goes_before() {
    let expected = Host::starttls("a.example").priority(7).weight(5);
    for (format, text) in [
        (Json, r#""smtp://a.example?priority=7&weight=5""#),
        (Json, r#"{"url": "smtp://a.example?priority=7&weight=3", "weight": 5}"#),
        (Yaml, "smtp://a.example?priority=7&weight=5"),
        (Toml, "url = 'smtp://a.example?weight=5'\npriority = 7"),
        (Toml, "name = 'a.example'\npriority = 7\nweight = 5\nmax_connections = 'off'"),
    ] {
        assert_eq!(format.read::<Host>(text).unwrap(), expected, "{text}");
    }
    for hosts in ["'smtp://a.example'", "{ name = 'a.example' }", "['smtp://a.example']"] {
        let options: PoolOptions = Toml.read(&format!("hosts = {hosts}")).unwrap();
        assert_eq!(options.hosts, [Host::starttls("a.example")], "{hosts}");
    }
}

#[test]
fn a_host_that_could_not_be_read_is_refused_wherever_it_is_used() {
    let host: Host = Json.read(r#"{"name": "a.example", "colour": "red"}"#).unwrap();
    let error = SmtpSender::builder().host(Host::plain("b.example")).host(host.clone().weight(3)).build().unwrap_err();
    assert_eq!((error.option(), error.value()), ("hosts[1].colour", "unknown"));
    #[cfg(feature = "r2d2")]
    assert_eq!(smtp_pool::SmtpConnectionManager::new(host).unwrap_err().option(), "hosts[0].colour");
}

#[test]
fn off_is_spelled_the_same_in_every_format() {
    for key in ["idle_timeout", "max_lifetime", "keepalive_interval", "max_messages_per_connection"] {
        for (format, text) in [
            (Toml, format!("{key} = 'off'")),
            (Json, format!("{{\"{key}\": \"off\"}}")),
            (Yaml, format!("{key}: 'off'")),
            (Yaml, format!("{key}: off")),
            // What YAML 1.1 makes of it.
            (Yaml, format!("{key}: false")),
        ] {
            let options: PoolOptions = format.read(&text).unwrap();
            let values = [
                ("idle_timeout", options.idle_timeout.is_none()),
                ("max_lifetime", options.max_lifetime.is_none()),
                ("keepalive_interval", options.keepalive_interval.is_none()),
                ("max_messages_per_connection", options.max_messages_per_connection.is_none()),
            ];
            for (other, is_off) in values {
                assert_eq!(is_off, other == key || other == "max_messages_per_connection", "{text}: {other}");
            }
        }
    }
}

/// Format, file, key, rule; written with the shortest form that is wrong.
const WRONG: &[(Format, &str, &str, &str)] = &[
    // Settings of the pool.
    (Toml, "colour = 1", "`colour`", "unknown: the keys are max_size, interactive_reserve, min_idle,"),
    (Json, r#"{"max_sise": 3}"#, "`max_sise`", "unknown: the keys are max_size, interactive_reserve, min_idle,"),
    (Yaml, "max_size: 3\n8: 4", "`8`", "unknown: the keys are max_size, interactive_reserve, min_idle,"),
    (Json, r#"{"max_size": 3, "max_size": 4}"#, "`max_size`", "must be given once"),
    (Yaml, "max_size: many", "`max_size` is \"many\"", "must be a whole number from 0 to"),
    (Json, r#"{"max_size": -1}"#, "`max_size` is -1", "must be a whole number from 0 to"),
    (Json, r#"{"max_size": 1.5}"#, "`max_size` is 1.5", "must be a whole number from 0 to"),
    (Toml, "max_retries = 4294967296", "`max_retries` is 4294967296", "from 0 to 4294967295"),
    (Toml, "acquire_timeout = 15", "`acquire_timeout` is 15", "must be a duration with its units, such as \"15s\""),
    (Yaml, "send_timeout: 3 parsecs", "`send_timeout` is \"3 parsecs\"", "must be a duration with its units"),
    (Toml, "refill_delay = '0'", "`refill_delay`", "must be a duration with its units"),
    (Json, r#"{"acquire_timeout": "off"}"#, "`acquire_timeout` is \"off\"", "must be a duration with its units"),
    (Toml, "idle_timeout = 'never'", "`idle_timeout` is \"never\"", ", or \"off\""),
    (Json, r#"{"max_lifetime": null}"#, "`max_lifetime` is null", ", or \"off\""),
    (Yaml, "max_lifetime:", "`max_lifetime` is null", ", or \"off\""),
    (Toml, "max_messages_per_connection = true", "`max_messages_per_connection` is true", ", or \"off\""),
    (Toml, "backoff = 'Fixed'", "`backoff` is \"Fixed\"", "must be `exponential` or `fixed`"),
    (Yaml, "keepalive_command: ping", "`keepalive_command` is \"ping\"", "must be `rset` or `noop`"),
    (Json, r#"{"ambiguity_boundary": 1}"#, "`ambiguity_boundary` is 1", "must be `last_byte` or `data_started`"),
    (Toml, "jitter = 'much'", "`jitter` is \"much\"", "must be a number"),
    (Toml, "interactive_reserve = 'half'", "`interactive_reserve` is \"half\"", "must be a number"),
    (Yaml, "learn_limits: sometimes", "`learn_limits` is \"sometimes\"", "must be true or false"),
    (Json, r#"{"learn_limits": 0}"#, "`learn_limits` is 0", "must be true or false"),
    (Toml, "hello_name = 'me.example'", "`hello_name`", "belongs into hosts["),
    (Json, "[]", "invalid type: sequence", "a table with the settings of a pool"),
    // Hosts, by their place.
    (Toml, "hosts = ['smtp://a.example', { name = 'b', colour = 1 }]", "`hosts[1].colour`", "the keys are url, name,"),
    (Json, r#"{"hosts": [{"name": "a", "name": "b"}]}"#, "`hosts[0].name`", "must be given once"),
    (Json, r#"{"hosts": ["smtp://a.example", 5]}"#, "`hosts[1]`", "must be a table or a URL"),
    (Toml, "hosts = 5", "`hosts[0]`", "must be a table or a URL"),
    (Toml, "hosts = [{ port = 25 }]", "`hosts[0].name` is missing", "must be given, or else `url`"),
    (Yaml, "hosts: [{name: [a]}]", "`hosts[0].name`", "must be text"),
    (Toml, "hosts = [{ url = 'smtp://a', port = 25 }]", "`hosts[0].port`", "must be said by the URL"),
    (Toml, "hosts = [{ url = 'http://a' }]", "`hosts[0].url`", "must begin with smtp:// or smtps://"),
    (Yaml, "hosts: ['smtp://a?weight=x']", "`hosts[0].url.weight` is \"x\"", "must be a whole number"),
    (Toml, "[[hosts]]\nname = 'a'\nsecurity = 'tls'", "`hosts[0].security` is \"tls\"", "must be `starttls` or"),
    (Toml, "[[hosts]]\nname = 'a'\nport = 65536", "`hosts[0].port` is 65536", "from 0 to 65535"),
    (Toml, "[[hosts]]\nname = 'a'\npriority = 'x'", "`hosts[0].priority` is \"x\"", "must be a whole number"),
    (Toml, "[[hosts]]\nname = 'a'\nsingle_round_trip = 'yes'", "`hosts[0].single_round_trip`", "must be true or false"),
    (
        Toml,
        "[[hosts]]\nname = 'a'\nauth_mechanisms = ['md5']",
        "`hosts[0].auth_mechanisms`",
        "must be a list of `plain`",
    ),
    (Toml, "[[hosts]]\nname = 'a'\nlocal_address = 'eth0'", "`hosts[0].local_address`", "must be an IP address"),
    (
        Toml,
        "[[hosts]]\nname = 'a'\nroot_certificate = 1",
        "`hosts[0].root_certificate`",
        "must be a certificate as PEM",
    ),
    (Toml, "[[hosts]]\nname = 'a'\nclient_identity = 1", "`hosts[0].client_identity`", "unknown"),
    (
        Toml,
        "[[hosts]]\nname = 'a'\n[hosts.credentials]\nuser = 'u'",
        "`hosts[0].credentials.password` is missing",
        "must be",
    ),
    (Toml, "[[hosts]]\nname = 'a'\ncredentials = 'redacted'", "`hosts[0].credentials`", "does not hold them"),
    (
        Json,
        r#"{"hosts": [{"name": "a", "credentials": {"user": "u", "password": 5}}]}"#,
        "`hosts[0].credentials.password` is not shown",
        "must be text, in quotes",
    ),
    (
        Json,
        r#"{"hosts": [{"name": "a", "credentials": {"user": "u", "pass": "p"}}]}"#,
        "`hosts[0].credentials.pass` is unknown",
        "the keys are user, password",
    ),
    // What reads well and breaks a rule.
    (Json, r#"{"max_size": 0}"#, "`max_size` is 0", "must be at least 1"),
    (Toml, "min_idle = 9", "`min_idle` is 9", "must not be above max_size, 8"),
    (Yaml, "idle_timeout: 0s", "`idle_timeout` is 0 s", "must be longer than zero"),
    (Yaml, "idle_timeout: 30years", "`idle_timeout`", "must not be longer than ten years"),
    (Json, r#"{"interactive_reserve": 1}"#, "`interactive_reserve` is 1", "must be a ratio from 0 to below 1"),
    (Yaml, "interactive_reserve: .nan", "`interactive_reserve` is NaN", "must be a ratio from 0 to below 1"),
    (Toml, "interactive_reserve = -0.1", "`interactive_reserve` is -0.1", "must be a ratio from 0 to below 1"),
    (Toml, "jitter = 2", "`jitter` is 2", "must be a ratio from 0 to 1"),
    (Toml, "hosts = ['smtp://a', { name = 'b', weight = 0 }]", "`hosts[1].weight` is 0", "must be at least 1"),
    (Toml, "hosts = ['smtp://a', 'smtp://a']", "`hosts[1]`", "must differ from hosts[0]"),
    (Toml, "hosts = [{ name = 'a', root_certificate = 'b' }]", "`hosts[0].root_certificate`", "must be a certificate"),
];

#[test]
fn each_wrong_file_is_refused_by_key_and_rule() {
    for (format, text, key, rule) in WRONG {
        let complaint = format.complaint(text);
        assert!(complaint.contains(key), "{text}: {key} is not in: {complaint}");
        assert!(complaint.contains(rule), "{text}: {rule} is not in: {complaint}");
    }
}

#[test]
fn a_setting_of_the_pool_is_refused_by_the_reader_who_knows_the_line() {
    for text in ["max_size = 4\ncolour = 1", "max_size = 4\nmin_idle = 'x'", "max_size = 4\nidle_timeout = 1"] {
        let error = Toml.read::<PoolOptions>(text).unwrap_err().to_string();
        assert!(error.contains("at line 2"), "{error}");
    }
    assert!(Toml.read::<PoolOptions>("hello_name = 'a'").is_err());
}

#[test]
fn what_was_written_is_read_again() {
    let mut bare = maximal();
    // Without what is not written.
    bare.hosts[0] = Host::implicit_tls("smtp-primary.example.com").port(2465).weight(3).max_connections(4);
    bare.hosts[1] = Host::plain("::1").root_certificate("one\n").root_certificate("two\n").priority(u32::MAX);
    let mut odd = PoolOptions::default();
    odd.hosts = vec![Host::starttls("a.example").auth_mechanisms([])];
    odd.acquire_timeout = Duration::new(123_456_789, 987_654_321);
    odd.refill_delay = Duration::from_nanos(1);
    (odd.idle_timeout, odd.keepalive_interval, odd.max_messages_per_connection) = (None, None, None);
    odd.jitter = 1.0 / 3.0;
    for options in [PoolOptions::default(), bare, odd] {
        for format in FORMATS {
            let text = format.write(&options);
            assert_eq!(format.read::<PoolOptions>(&text).unwrap(), options, "{format:?}:\n{text}");
        }
    }
}

#[test]
fn a_written_file_tells_that_there_were_credentials_and_is_not_taken_without() {
    let written = Toml.write(&maximal());
    assert_eq!(written.matches("credentials = \"redacted\"").count(), 2, "{written}");
    let complaint = Toml.complaint(&written);
    assert!(complaint.contains("option `hosts[0].credentials` is redacted: must be a table"), "{complaint}");
    // With them in their places it is what it was.
    let mended = written.replacen("\"redacted\"", "{ user = 'smtp-user', password = 'smtp-password' }", 1).replacen(
        "\"redacted\"",
        "{ user = 'standby', password = 'standby-password' }",
        1,
    );
    assert_eq!(Toml.read::<PoolOptions>(&mended).unwrap(), maximal());
    let mut options = PoolOptions::default();
    options.hosts = vec![Host::starttls("a.example").client_identity("canary", "canary")];
    for format in FORMATS {
        let written = format.write(&options);
        assert!(!written.contains("canary"));
        assert!(format.complaint(&written).contains("`hosts[0].client_identity`"), "{written}");
    }
}

#[test]
fn a_certificate_given_as_der_is_written_as_pem() {
    use base64::Engine as _;

    let pem: String = TOML[TOML.find("-----BEGIN").unwrap()..TOML.rfind("\"\"\"").unwrap()].to_owned();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    let mut options = PoolOptions::default();
    options.hosts = vec![Host::starttls("a.example").root_certificate(der)];
    let mut expected = PoolOptions::default();
    expected.hosts = vec![Host::starttls("a.example").root_certificate(pem)];
    assert_eq!(Toml.read::<PoolOptions>(&Toml.write(&options)).unwrap(), expected);
}

const CANARY: &str = "canary-Zw9";
const CANARY_NUMBER: &str = "918273645";

/// Files with a mistake, and with a password on the very line where a reader would see it.
const LEAKY: &[(Format, &str)] = &[
    (Toml, "hosts = [{ name = 'a', credentials = { user = 'canary-Zw9', password = 918273645 } }]"),
    (Json, r#"{"hosts": [{"name": "a", "credentials": {"user": "canary-Zw9", "password": 918273645}}]}"#),
    (Yaml, "hosts:\n- name: a\n  credentials:\n    user: canary-Zw9\n    password: 918273645"),
    (Toml, "hosts = [{ name = 'a', credentials = { user = 918273645, password = 'canary-Zw9' } }]"),
    (Toml, "hosts = [{ name = 'a', credentials = { user = 'u', password = ['canary-Zw9'] } }]"),
    (Toml, "hosts = [{ name = 'a', credentials = { user = 'u', passwort = 'canary-Zw9' } }]"),
    (Toml, "hosts = [{ name = 'a', credentials = { user = 'u', password = 'canary-Zw9', realm = 'x' } }]"),
    (Toml, "hosts = [{ name = 'a', credentials = 'u:canary-Zw9' }]"),
    (Json, r#"{"hosts": [{"name": "a", "credentials": "u:canary-Zw9"}]}"#),
    (Yaml, "hosts: [{name: a, credentials: 'u:canary-Zw9'}]"),
    (Yaml, "hosts: [{name: a, credentials: {user: u, password: !secret canary-Zw9}, weight: 0}]"),
    (Toml, "hosts = [{ name = 'a', password = 'canary-Zw9' }]"),
    (Toml, "hosts = [{ name = 'a', weight = 'x', credentials = { user = 'u', password = 'canary-Zw9' } }]"),
    (Toml, "hosts = [{ name = 'a', colour = 1, credentials = { user = 'u', password = 'canary-Zw9' } }]"),
    (Toml, "hosts = [{ name = 'smtp://u:canary-Zw9@a' }]"),
    (Toml, "hosts = ['smtp://u:canary-Zw9@a?weight=x']"),
    (Toml, "hosts = [{ url = 'smtp://u:canary-Zw9@a', credentials = { user = 'u', password = 'canary-Zw9' } }]"),
    (Toml, "hosts = [{ url = 'smtp://u:canary-Zw9@a', port = 25 }]"),
    (Toml, "hosts = [{ url = ['smtp://u:canary-Zw9@a'] }]"),
    (Toml, "hosts = [{ url = 'canary-Zw9' }]"),
    (Toml, "hosts = 'http://u:canary-Zw9@a'"),
    (Json, r#"{"hosts": [["smtp://u:canary-Zw9@a"]]}"#),
    (Toml, "max_size = 4\npassword = 'canary-Zw9'"),
    (Toml, "max_size = 4\ncredentials = { user = 'u', password = 'canary-Zw9' }"),
    (Toml, "max_size = 4\nurl = 'smtp://u:canary-Zw9@a'"),
    (Json, "\"smtp://u:canary-Zw9@a\""),
    (Json, r#"{"smtp://u:canary-Zw9@a": {}}"#),
    (Json, r#"{"hosts": {"smtp://u:canary-Zw9@a": {}}}"#),
    (Toml, "max_size = 4\n'smtp://u:canary-Zw9@a' = 1"),
    (Yaml, "smtp://u:canary-Zw9@a"),
    (Toml, "hosts = [{ name = 'a', weight = 0, credentials = { user = 'u', password = 'canary-Zw9' } }]"),
    (Toml, "hosts = [{ name = 'a', credentials = { user = 'u', password = \"canary-Zw9\\u0000\" } }]"),
];

#[test]
fn no_error_about_a_file_shows_a_password() {
    for (format, text) in LEAKY {
        assert!(text.contains(CANARY) || text.contains(CANARY_NUMBER));
        let complaint = format.complaint(text);
        for canary in [CANARY, CANARY_NUMBER] {
            assert!(!complaint.contains(canary), "{text}\n{complaint}");
        }
        // And as a part of a larger file, all in one line, which is what `toml` would show.
        if text.starts_with("hosts") && matches!(format, Toml) {
            let mut whole: HashMap<String, PoolOptions> = Toml.read(&format!("mail = {{ {text} }}")).unwrap();
            let error = SmtpSender::from_options(whole.remove("mail").unwrap()).unwrap_err();
            let complaint = format!("{error}\n{error:?}");
            assert!(!complaint.contains(CANARY) && !complaint.contains(CANARY_NUMBER), "{text}\n{complaint}");
        }
    }
}

#[test]
fn neither_debug_nor_a_written_file_shows_a_password() {
    for text in [
        "hosts = ['smtp://canary-Zw9:canary-Zw9@a']",
        "hosts = [{ name = 'a', credentials = { user = 'canary-Zw9', password = 'canary-Zw9' } }]",
        "hosts = [{ name = 'a', credentials = { user = 'canary-Zw9', password = ['canary-Zw9'] } }]",
        "hosts = [{ name = 'a', passwort = 'canary-Zw9' }]",
    ] {
        let options: PoolOptions = Toml.read(text).unwrap();
        let shown = format!("{options:?}{options:#?}");
        assert!(!shown.contains(CANARY), "{shown}");
        for format in FORMATS {
            let written = format.write(&options);
            assert!(!written.contains(CANARY), "{written}");
        }
    }
}
