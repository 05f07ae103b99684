//! What `examples/bulk` promises, by the count of a server that outlives it: nobody gets the mail twice, and everybody gets it once who is
//! not unknown.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test may panic and needs no manual")]

mod common;
#[allow(dead_code, reason = "the tests need a part of it")]
#[path = "../examples/bulk/outcome.rs"]
mod outcome;
#[path = "common/program.rs"]
mod program;
#[path = "../examples/bulk/recipients.rs"]
mod recipients;
#[allow(dead_code, reason = "the tests need a part of it")]
#[path = "../examples/bulk/resume.rs"]
mod resume;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{PATIENCE, eventually, pace};
use outcome::State;
use recipients::{Skipped, Why};
use resume::ResumeFile;
use rustix::process::{Pid, Signal, kill_process};
use smtp_pool::testing::{Action, Script, Stage, TestServer};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// That of the example: how many are unknown at most after a kill.
const BLOCK: usize = 25;

/// A folder with a list in it.
struct Mailing(PathBuf);

impl Mailing {
    fn to(recipients: usize) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("smtp-pool-bulk-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let lines: String = (0..recipients).map(|number| format!("Somebody,{}\n", address(number))).collect();
        fs::write(folder.join("list.csv"), format!("name,email\n{lines}")).unwrap();
        Self(folder)
    }

    fn resume(&self) -> PathBuf {
        self.0.join("list.csv.resume")
    }

    /// The last word on each address, read in the simplest way there is.
    fn states(&self) -> HashMap<String, String> {
        let text = fs::read_to_string(self.resume()).unwrap();
        text.lines()
            .map(|line| line.split('\t'))
            .map(|mut parts| {
                let state = parts.next().unwrap().to_owned();
                (parts.next().unwrap().to_owned(), state)
            })
            .collect()
    }

    fn start(&self, server: &TestServer) -> Child {
        program::example("bulk")
            .arg(self.0.join("list.csv"))
            .env("SMTP_URL", format!("smtp://127.0.0.1:{}?tls=none", server.port()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(&self, server: &TestServer) -> Output {
        self.start(server).wait_with_output().unwrap()
    }
}

impl Drop for Mailing {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn address(number: usize) -> String {
    format!("to{number}@example.net")
}

/// How often the server has the mail of each.
fn taken(server: &TestServer) -> HashMap<String, usize> {
    let mut taken = HashMap::new();
    for message in server.messages() {
        *taken.entry(message.recipients()[0].clone()).or_default() += 1;
    }
    taken
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn kill(mut program: Child, server: &TestServer) {
    // SIGKILL.
    program.kill().unwrap();
    program.wait().unwrap();
    for barrier in ["accepted", "not accepted", "unread"] {
        server.release(barrier);
    }
    // What was on its way has arrived or never will.
    assert!(server.wait_for(|seen| seen.connections_open() == 0, PATIENCE));
}

#[test]
fn nobody_gets_it_twice_however_often_the_program_is_killed() {
    const RECIPIENTS: usize = 300;
    let mailing = Mailing::to(RECIPIENTS);
    let server = TestServer::builder().record(false).start();
    let scenes = [
        // The server has it, and the program is killed before it can know.
        ("accepted", Stage::EndOfData, 30, vec![Action::Accept, Action::barrier("accepted"), Action::Reset]),
        // The server does not have it, and the program cannot know.
        ("not accepted", Stage::EndOfData, 11, vec![Action::barrier("not accepted"), Action::Reset]),
        // The very first mail of a run.
        ("unread", Stage::Mail, 1, vec![Action::barrier("unread"), Action::Reset]),
    ];
    for (barrier, stage, nth, actions) in scenes {
        server.set_script(Script::new().on_nth(stage, nth, actions));
        let program = mailing.start(&server);
        server.wait_until_reached(barrier);
        kill(program, &server);
        server.assert_script_used();
    }
    // And at moments that nobody has chosen.
    server.set_script(Script::new());
    for more in [1, 20, 33] {
        let so_far = server.snapshot().messages();
        let program = mailing.start(&server);
        assert!(server.wait_for(|seen| seen.messages() >= so_far + more, PATIENCE));
        kill(program, &server);
    }

    let output = mailing.run(&server);
    assert!(output.status.success(), "{output:?}");

    let (taken, states) = (taken(&server), mailing.states());
    assert_eq!(states.len(), RECIPIENTS);
    let mut unknown = [0, 0];
    for number in 0..RECIPIENTS {
        let address = address(number);
        let taken = taken.get(&address).copied().unwrap_or(0);
        match states[&address].as_str() {
            "unknown" => {
                assert!(taken <= 1, "{address}: {taken}");
                assert!(text(&output).contains(&format!("  {address}  <")), "{address} is not listed");
                unknown[taken] += 1;
            }
            state => assert_eq!((state, taken), ("sent", 1), "{address}"),
        }
    }
    assert!(unknown[0] >= 2 && unknown[1] >= 1, "{unknown:?}");
    assert!(unknown[0] + unknown[1] <= 6 * BLOCK, "{unknown:?}");
}

#[test]
fn ctrl_c_finishes_what_is_under_way() {
    const RECIPIENTS: usize = 40;
    let mailing = Mailing::to(RECIPIENTS);
    let script =
        Script::new().on_nth(Stage::EndOfData, 7, [Action::Accept, Action::barrier("under way"), Action::Default]);
    let server = TestServer::builder().script(script).start();
    let mut program = mailing.start(&server);
    server.wait_until_reached("under way");
    kill_process(Pid::from_child(&program), Signal::INT).unwrap();
    let mut errors = BufReader::new(program.stderr.take().unwrap());
    let mut said = String::new();
    errors.read_line(&mut said).unwrap();
    assert_eq!(said, "Finishing what is under way. Once more cuts it.\n");
    server.release("under way");
    errors.read_to_string(&mut said).unwrap();
    let output = program.wait_with_output().unwrap();

    let states = mailing.states();
    assert!(states.values().all(|state| state == "sent" || state == "later"), "{states:?}");
    let sent = states.values().filter(|state| *state == "sent").count();
    assert_eq!(sent, server.messages().len());
    let is_complete = sent == RECIPIENTS;
    assert_eq!(output.status.success(), is_complete, "{output:?}");
    assert!(is_complete || text(&output).contains("To go on, start it again as before."), "{output:?}");

    let output = mailing.run(&server);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output).contains("\n40 sent, 0 refused, 0 unknown, 0 left, 0 lines skipped.\n"), "{output:?}");
    let taken = taken(&server);
    assert!((0..RECIPIENTS).all(|number| taken[&address(number)] == 1), "{taken:?}");
}

#[test]
fn a_second_ctrl_c_cuts_what_may_have_been_accepted_and_says_so() {
    let mailing = Mailing::to(1);
    let script =
        Script::new().on_nth(Stage::EndOfData, 1, [Action::Accept, Action::barrier("under way"), Action::Default]);
    let server = TestServer::builder().script(script).start();
    let program = mailing.start(&server);
    server.wait_until_reached("under way");
    let mut output = None;
    thread::scope(|scope| {
        let pid = Pid::from_child(&program);
        let ended = scope.spawn(|| program.wait_with_output().unwrap());
        // Two signals of the same kind that nobody has taken yet are one, so there may have to be a third.
        eventually("the program ends", || {
            if !ended.is_finished() {
                kill_process(pid, Signal::INT).unwrap();
                pace(common::ms(20));
            }
            ended.is_finished()
        });
        output = ended.join().ok();
    });
    server.release("under way");
    let output = output.unwrap();
    assert!(text(&output).contains("\n0 sent, 0 refused, 1 unknown, 0 left"), "{output:?}");
    assert_eq!(mailing.states()[&address(0)], "unknown");
}

#[test]
fn a_wrong_password_refuses_nobody() {
    let mailing = Mailing::to(3);
    let server = TestServer::builder().credentials("user", "secret").start();
    let output = mailing.run(&server);
    assert!(!output.status.success(), "{output:?}");
    assert!(text(&output).contains("\n0 sent, 0 refused, 0 unknown, 3 left"), "{output:?}");
    assert!(mailing.states().values().all(|state| state == "later"));
}

#[test]
fn the_demo_shows_each_outcome() {
    // Where the demo keeps its resume file somebody may have left one.
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bulk/recipients.csv");
    let folder = Mailing::to(0);
    fs::copy(demo, folder.0.join("list.csv")).unwrap();
    let output = program::example("bulk").arg(folder.0.join("list.csv")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = text(&output);
    assert!(said.contains("\n116 sent, 1 refused, 1 unknown, 0 left, 2 lines skipped.\n"), "{said}");
    assert!(said.contains("took 117 mails in this run; 0 recipients have more than one.\n"), "{said}");
}

/// The resume file after somebody wrote this.
fn opened(text: &str) -> (Result<ResumeFile, Error>, Mailing) {
    let mailing = Mailing::to(0);
    fs::write(mailing.resume(), text).unwrap();
    (ResumeFile::open(&mailing.resume()), mailing)
}

#[test]
fn who_has_begun_and_has_no_outcome_is_unknown() {
    let (resume, mailing) = opened("begun\ta@x\t<1@x>\t\nbegun\tb@x\t<2@x>\t\nsent\tb@x\t<2@x>\tok\n");
    let resume = resume.unwrap();
    assert!(!resume.may_be_sent("a@x") && !resume.may_be_sent("b@x") && resume.may_be_sent("c@x"));
    assert_eq!(mailing.states()["a@x"], "unknown");
    assert_eq!(resume.states().find(|(key, ..)| *key == "a@x"), Some(("a@x", State::Unknown, "<1@x>")));
}

#[test]
fn a_last_line_without_an_end_says_nothing() {
    // Nothing of it has left: the end of the line is written before.
    let (resume, mailing) = opened("sent\tb@x\t<2@x>\tok\nbegun\ta@x\t<1@");
    let mut resume = resume.unwrap();
    assert!(resume.may_be_sent("a@x"));
    resume.begin([("a@x", "<3@x>")]).unwrap();
    assert_eq!(fs::read_to_string(mailing.resume()).unwrap(), "sent\tb@x\t<2@x>\tok\nbegun\ta@x\t<3@x>\t\n");

    // An outcome that is cut is none.
    let (resume, _mailing) = opened("begun\ta@x\t<1@x>\t\nlater\ta@x\t<1@");
    assert!(!resume.unwrap().may_be_sent("a@x"));
}

#[test]
fn a_person_settles_by_a_line() {
    let (resume, _mailing) =
        opened("unknown\ta@x\t<1@x>\t\nunknown\tb@x\t<2@x>\t\nlater\tA@X\n# in the log\nsent\tb@x\n");
    let resume = resume.unwrap();
    assert!(resume.may_be_sent("a@x") && !resume.may_be_sent("b@x"));
}

#[test]
fn a_file_that_makes_no_sense_is_not_guessed_at() {
    for text in ["delivered\ta@x\n", "sent a@x\n", "sent\n", "sent\t\t\n", "\0\0\0\0\n"] {
        let (resume, _mailing) = opened(text);
        assert!(resume.is_err_and(|error| error.to_string().contains("line 1")), "{text:?}");
    }
}

#[test]
fn two_runs_at_a_time_are_one_too_many() {
    let (resume, mailing) = opened("");
    let _first = resume.unwrap();
    assert!(ResumeFile::open(&mailing.resume()).is_err_and(|error| error.to_string().contains("is in use")));
}

#[test]
fn a_servers_text_breaks_no_line() {
    let (resume, mailing) = opened("");
    resume.unwrap().note("a@x", "<1@x>", State::Refused, "no\r\nsent\tb@x").unwrap();
    assert_eq!(fs::read_to_string(mailing.resume()).unwrap(), "refused\ta@x\t<1@x>\tno  sent b@x\n");
}

#[test]
fn an_address_gets_one_mail_however_often_it_is_listed() {
    let list = "\u{feff}Email, city ,NAME\n a@example.com ,Rome,\"Doe, Ann\"\nA@EXAMPLE.com,Rome,Ann\nnobody,,\n b@example.com,,\n";
    let (recipients, skipped) = recipients::read(list.as_bytes()).unwrap();
    let mailboxes: Vec<_> = recipients.iter().map(|recipient| recipient.mailbox.to_string()).collect();
    assert_eq!(mailboxes, ["\"Doe, Ann\" <a@example.com>", "b@example.com"]);
    let expected = [(3, Why::Duplicate("a@example.com".to_owned())), (4, Why::Invalid("nobody".to_owned()))];
    assert_eq!(skipped, expected.map(|(line, why)| Skipped { line, why }));
    assert!(recipients::read("name,address\n".as_bytes()).is_err());
}

#[test]
fn what_begins_is_on_the_disk_before_its_first_byte_leaves() {
    if !Command::new("strace").arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("not run: the order of system calls is seen by strace, which is not here, or may not trace");
        return;
    }
    let mailing = Mailing::to(2 * BLOCK + 1);
    let server = TestServer::start();
    let log = mailing.0.join("calls");
    let program = program::example("bulk").get_program().to_owned();
    let traced = Command::new("strace")
        .args(["-f", "-s", "100000", "-e", "trace=write,sendto,fdatasync", "-o"])
        .args([log.as_os_str(), &program, mailing.0.join("list.csv").as_os_str()])
        .env("SMTP_URL", format!("smtp://127.0.0.1:{}?tls=none", server.port()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(traced.status.success(), "{traced:?}");

    let (mut written, mut on_disk, mut left) = (Vec::new(), HashSet::new(), 0);
    let calls = fs::read_to_string(log).unwrap();
    for call in calls.lines() {
        if call.contains("write(") && call.contains("\"begun\\t") {
            written.extend(call.split("begun\\t").skip(1).filter_map(|rest| rest.split("\\t").next()));
        } else if call.contains("fdatasync") && call.ends_with("= 0") {
            on_disk.extend(written.drain(..));
        } else if let Some((_, rest)) = call.split_once("RCPT TO:<") {
            let address = rest.split('>').next().unwrap();
            assert!(on_disk.contains(address), "{address} has left too early: {calls}");
            left += 1;
        }
    }
    assert_eq!((left, server.messages().len()), (2 * BLOCK + 1, 2 * BLOCK + 1));
}
