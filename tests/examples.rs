//! The short examples do what they say. They judge themselves by what their embedded servers have, and end with an error if it is not that;
//! here they are run, and what they print is looked at.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test may panic and needs no manual")]

#[path = "common/program.rs"]
mod program;

/// What it printed, if it ended well.
fn run(name: &str, arguments: &[&str]) -> String {
    let output = program::example(name).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn strict_sla_sends_in_time_or_says_why_not() {
    let said = run("strict_sla", &[]);
    assert_eq!(said.matches("  sent via ").count(), 3, "{said}");
    assert_eq!(said.matches("  not sent, and may be tried again: ").count(), 2, "{said}");
    assert_eq!(said.matches("  in doubt, and not sent again: ").count(), 1, "{said}");
    assert!(said.ends_with("Every call kept to 2s, and said what the servers say.\n"), "{said}");
}

#[cfg(feature = "r2d2")]
#[test]
fn with_r2d2_sends_over_the_connections_of_r2d2() {
    let said = run("with_r2d2", &[]);
    assert_eq!(said.matches("Sent over connection ").count(), 20, "{said}");
    assert!(said.contains("20 of 20 messages arrived over "), "{said}");
}

#[test]
fn from_toml_sends_as_the_file_says() {
    let said = run("from_toml", &[]);
    for (what, line) in [
        ("a setting of the file", "    acquire_timeout = \"5s\"\n"),
        ("a default", "    send_timeout = \"30s\"\n"),
        ("a host of the file", "smtp-standby.example.com"),
        ("the key that is wrong", "max_sise"),
        ("the key that has no unit", "acquire_timeout"),
        ("the rule that two keys break", "min_idle"),
        ("the mail", "\nSent via 127.0.0.1:"),
    ] {
        assert!(said.contains(line), "{what}: {said}");
    }
}

#[test]
fn from_toml_checks_the_hosts_of_a_file() {
    let server = smtp_pool::testing::TestServer::start();
    let file = std::env::temp_dir().join(format!("smtp-pool-from-toml-{}.toml", std::process::id()));
    let host = |port| format!("[[hosts]]\nname = \"127.0.0.1\"\nsecurity = \"plain\"\nport = {port}\n");
    std::fs::write(&file, host(server.port())).unwrap();
    let said = run("from_toml", &[file.to_str().unwrap()]);
    assert_eq!(said, format!("127.0.0.1:{}: answers\n", server.port()));

    server.stop_accepting();
    let output = program::example("from_toml").arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert!(server.messages().is_empty());
}

#[test]
fn migrate_from_lettre_delivers_the_same_mail_both_ways() {
    let said = run("migrate_from_lettre", &[]);
    assert!(said.contains("before: 10 mails over 1 connection(s)"), "{said}");
    assert!(said.contains("after: 10 mails over 1 connection(s), "), "{said}");
    assert!(said.contains(", 0 of them NOOP\n"), "{said}");
    assert!(said.contains("    Subject: Order 10\n"), "{said}");
}
