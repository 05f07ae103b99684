//! What `examples/web_form` promises to browsers and to other clients, against the example as a process.
//!
//! The relay is this test's own, so what was sent is counted by somebody else. The browser is a real one:
//! `apt-get install --no-install-recommends chromium`, then `cargo test --test web_form -- --ignored`. With `WEB_FORM_SHOTS=folder` it leaves
//! a picture of each page there.

#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test may panic and needs no manual")]

mod browser;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/program.rs"]
mod example;
mod in_browser;
mod program;

use std::thread;

use common::{PATIENCE, eventually};
use program::Program;
use smtp_pool::testing::{Action, Script, Stage, TestServer};

const MAIL: [(&str, &str); 3] = [("to", "to1@example.net"), ("subject", "Hello"), ("text", "How are you?")];

/// `MAIL` with one field more, or another value for one.
fn mail<'f>(name: &'f str, value: &'f str) -> Vec<(&'f str, &'f str)> {
    MAIL.into_iter().filter(|(it, _)| *it != name).chain([(name, value)]).collect()
}

#[test]
fn each_outcome_has_its_status_and_its_time_to_come_back() {
    let server = TestServer::start();
    let program = Program::start(Some(&server));
    let answer = |script: Script| {
        server.set_script(script);
        let reply = program.post(&MAIL);
        (reply.status, reply.retry_after(), reply.between("Outcome</dt><dd><code>", "<").to_owned())
    };
    // The table of the guide's page failure_recipes.
    assert_eq!(answer(Script::new()), (202, None, "accepted".into()));
    let refused = Script::new().on(Stage::Rcpt, [Action::reply("550 5.1.1 no\r\n")]);
    assert_eq!(answer(refused), (502, None, "permanent_failure".into()));
    let greylisted = Script::new().on(Stage::Rcpt, [Action::reply("450 4.2.0 later\r\n")]);
    assert_eq!(answer(greylisted), (503, Some(300), "retryable_temporary_failure".into()));
    let cut = Script::new().on(Stage::Mail, [Action::Reset]);
    assert_eq!(answer(cut), (503, Some(1), "retryable_before_send".into()));
    assert_eq!(server.messages().len(), 1, "the first");
    let unknown = Script::new().on(Stage::EndOfData, [Action::Accept, Action::Reset]);
    assert_eq!(answer(unknown), (504, None, "unknown_after_data".into()));
    assert_eq!(server.messages().len(), 2, "and the one that nobody knows of");

    server.stop_accepting();
    (1..=server.connections_accepted()).for_each(|number| server.connection(number).close());
    let (status, wait, kind) = answer(Script::new());
    assert_eq!((status, &*kind), (503, "host_unavailable"));
    // reconnect_cooldown, and its jitter.
    assert!((4..=6).contains(&wait.unwrap()), "{wait:?}");

    // The status and the metrics have seen it all, and name nobody.
    let page = program.get("/status").body;
    for kind in [
        "accepted",
        "permanent_failure",
        "retryable_temporary_failure",
        "retryable_before_send",
        "unknown_after_data",
        "host_unavailable",
    ] {
        assert!(page.contains(&format!("<code>{kind}</code>")), "{kind} in {page}");
    }
    assert!(page.contains("cooling down, ") && page.contains(&format!("127.0.0.1:{}", server.port())), "{page}");
    assert!(!page.contains("example.net") && !page.contains("5.1.1"), "{page}");
    let trace = page.split("href=\"/outcome/").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let trace = program.get(&format!("/outcome/{trace}"));
    assert!(trace.status == 200 && trace.body.contains("gave up"), "{}", trace.body);
    let metrics = program.get("/metrics").body;
    let host = format!("host=\"127.0.0.1:{}\"", server.port());
    assert!(metrics.contains(&format!("smtp_pool_send_success{{{host}}} 1\n")), "{metrics}");
    assert!(metrics.contains(&format!("smtp_pool_send_ambiguous{{{host}}} 1\n")), "{metrics}");
}

#[test]
fn an_exhausted_pool_is_503_while_the_status_shows_who_waits() {
    // The example's max_size.
    const CONNECTIONS: usize = 6;
    let held = Script::new().on(Stage::Mail, [Action::barrier("held"), Action::Default]);
    let server = TestServer::builder().script(held).start();
    let program = Program::start(Some(&server));
    thread::scope(|scope| {
        let holders: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(|| program.post(&MAIL))).collect();
        assert!(server.wait_for(|seen| seen.barrier_reached("held") == CONNECTIONS, PATIENCE));
        let late = scope.spawn(|| program.post(&MAIL));
        eventually("somebody waits", || program.get("/status/live").body.contains("<dt>waiting</dt><dd>1</dd>"));
        let late = late.join().unwrap();
        assert_eq!((late.status, late.retry_after()), (503, Some(5)), "{}", late.body);
        assert!(late.body.contains("<code>pool_exhausted</code>"), "{}", late.body);
        server.release("held");
        holders.into_iter().for_each(|holder| assert_eq!(holder.join().unwrap().status, 202));
    });
    assert_eq!(server.messages().len(), CONNECTIONS);
    assert!(program.get("/status/live").body.contains("<dt>exhausted</dt><dd>1</dd>"));
}

#[test]
fn a_ticket_is_sent_once_however_often_it_is_posted() {
    let held = Script::new().once(Stage::EndOfData, [Action::barrier("held"), Action::Default]);
    let server = TestServer::builder().script(held).start();
    let program = Program::start(Some(&server));
    let form = program.form();
    let fields = mail("ticket", form.ticket());
    let id = format!("<{}@example.com>", form.ticket());

    // A double click.
    thread::scope(|scope| {
        let first = scope.spawn(|| program.post(&fields));
        assert!(server.wait_for(|seen| seen.barrier_reached("held") == 1, PATIENCE));
        let second = program.post(&fields);
        assert_eq!(second.status, 409, "{}", second.body);
        assert!(program.get(&format!("/mail/{}", form.ticket())).body.contains("It is being sent"));
        server.release("held");
        assert_eq!(first.join().unwrap().status, 202);
    });
    // A reload, of the answer and of the page before it.
    assert_eq!(program.post(&fields).status, 202);
    let page = program.get(&format!("/mail/{}", form.ticket())).body;
    assert!(page.contains("On its way") && !page.contains("name=\"text\""), "{page}");
    assert_eq!((server.messages().len(), server.accepted(&id)), (1, 1));

    // Another mail on the form that was found by going back.
    let other = program.post(&mail("ticket", form.ticket()).into_iter().map(change_text).collect::<Vec<_>>());
    assert_eq!((other.status, server.messages().len(), server.accepted(&id)), (202, 2, 1));

    // Nobody knows: not again, ever.
    server.set_script(Script::new().once(Stage::EndOfData, [Action::Accept, Action::Reset]));
    let form = program.form();
    let fields = mail("ticket", form.ticket());
    for _ in 0..3 {
        let reply = program.post(&fields);
        assert_eq!(reply.status, 504);
        assert!(!reply.body.contains("name=\"text\""), "no form to press a button on");
    }
    assert_eq!(server.accepted(&format!("<{}@example.com>", form.ticket())), 1);

    // Surely not accepted: the same ticket again, and the same Message-ID.
    server.set_script(Script::new().on(Stage::Rcpt, [Action::reply("450 4.2.0 later\r\n")]));
    let first = program.form();
    let refused = program.post(&mail("ticket", first.ticket()));
    assert_eq!((refused.status, refused.ticket()), (503, first.ticket()));
    assert_eq!(program.get(&format!("/mail/{}", first.ticket())).ticket(), first.ticket());
    server.set_script(Script::new());
    assert_eq!(program.post(&mail("ticket", refused.ticket())).status, 202);
    assert_eq!(server.accepted(&format!("<{}@example.com>", first.ticket())), 1);
}

fn change_text<'f>((name, value): (&'f str, &'f str)) -> (&'f str, &'f str) {
    (name, if name == "text" { "Something else" } else { value })
}

#[test]
fn what_is_no_mail_is_422_and_is_given_back_escaped() {
    const EVIL: &str = "\"><script>alert(1)</script>&'";
    let server = TestServer::start();
    let program = Program::start(Some(&server));
    let wrong = [
        ("to", ""),
        ("to", "nobody"),
        ("to", "a@example.net, b@example.net"),
        ("to", "a@example.net\r\nRCPT TO:<b@example.net>"),
        ("to", EVIL),
        ("subject", "Hello\r\nBcc: b@example.net"),
        ("subject", "Hello\nBcc: b@example.net"),
        ("text", " \r\n"),
    ];
    for (name, value) in wrong {
        let reply = program.post(&mail(name, value));
        assert_eq!(reply.status, 422, "{name} {value:?}");
        assert!(reply.body.contains(&format!("id=\"{name}-mistake\"")), "{}", reply.body);
    }
    let all = [("to", EVIL), ("subject", EVIL), ("text", EVIL), ("ticket", EVIL)];
    let reply = program.post(&all);
    assert_eq!(reply.body.matches("&lt;script&gt;").count(), 3, "{}", reply.body);
    assert!(!reply.body.contains("<script>"), "{}", reply.body);
    assert!(reply.ticket().bytes().all(|byte| byte.is_ascii_hexdigit()), "a ticket of its own: {}", reply.ticket());
    assert!(server.messages().is_empty());

    // In a mail it is content, on the page that answers it is text, and so is what the server says.
    server.set_script(Script::new().once(Stage::EndOfData, [Action::reply("250 2.0.0 <script>alert(2)</script>\r\n")]));
    let reply = program.post(&[("to", "to1@example.net"), ("subject", EVIL), ("text", EVIL)]);
    assert_eq!(reply.status, 202);
    assert!(reply.body.contains("&lt;script&gt;alert(2)") && !reply.body.contains("<script>"), "{}", reply.body);
    let [message] = &server.messages()[..] else { panic!("one mail") };
    assert_eq!(message.recipients(), ["to1@example.net"]);
    assert!(String::from_utf8_lossy(message.content()).contains("alert(1)"));
    assert!(server.violations().is_empty(), "{:?}", server.violations());
    assert_eq!(program.get("/outcome/<script>").status, 404);
    let policy = reply.header("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
}

#[test]
fn the_page_of_another_site_cannot_post() {
    let server = TestServer::start();
    let program = Program::start(Some(&server));
    let own = format!("Origin: http://{}\r\n", program.address);
    for lines in [
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        &format!("Sec-Fetch-Site: cross-site\r\n{own}"),
    ] {
        assert_eq!(program.post_with(lines, &MAIL).status, 403, "{lines}");
    }
    assert!(server.messages().is_empty());
    for lines in ["", "Sec-Fetch-Site: same-origin\r\n", &own] {
        assert_eq!(program.post_with(lines, &MAIL).status, 202, "{lines}");
    }
    assert_eq!(server.messages().len(), 3);
}

#[test]
fn a_body_is_bounded_whether_or_not_it_says_its_length() {
    let server = TestServer::start();
    let program = Program::start(Some(&server));
    let text = "x".repeat(65 * 1024);
    assert_eq!(program.post(&mail("text", &text)).status, 413);
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n",
        program.address,
        text.len()
    );
    assert_eq!(program.ask(&chunked).status, 413);
    assert_eq!(program.post(&mail("text", &text[..60 * 1024])).status, 202);
    assert_eq!(program.ask("DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").status, 405);
}

#[test]
fn ctrl_c_ends_it_once_the_running_requests_are_answered() {
    let held = Script::new().on(Stage::EndOfData, [Action::barrier("held"), Action::Default]);
    let server = TestServer::builder().script(held).start();
    let mut program = Program::start(Some(&server));
    thread::scope(|scope| {
        let client = program.client();
        let running = scope.spawn(move || client.post(&MAIL).status);
        assert!(server.wait_for(|seen| seen.barrier_reached("held") == 1, PATIENCE));
        program.interrupt();
        program.says("Draining");
        server.release("held");
        assert_eq!(running.join().unwrap(), 202);
    });
    program.says("Ended");
    program.ends_well();
    assert_eq!(server.messages().len(), 1);
}

#[test]
fn the_example_answers_as_the_guide_does() {
    const GUIDE: &str = include_str!("../../src/guide/failure_recipes.md");
    const EXAMPLE: &str = include_str!("../../examples/web_form/outcome.rs");
    let of = |text: &str| {
        let rest = text.split("\nfn http(").nth(1).unwrap();
        rest.split("\n}\n").next().unwrap().to_owned()
    };
    assert_eq!(of(GUIDE), of(EXAMPLE));
}
