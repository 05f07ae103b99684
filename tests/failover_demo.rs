//! What `examples/failover_demo` shows: pictures made by hand, drawn, and read as a person would; and the program itself, in a pipe and on a
//! terminal.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test may panic and needs no manual"
)]

#[path = "../examples/failover_demo/diary.rs"]
mod diary;
#[path = "../examples/failover_demo/frame.rs"]
mod frame;
#[path = "../examples/failover_demo/ink.rs"]
mod ink;
#[path = "../examples/failover_demo/picture.rs"]
mod picture;
#[path = "common/program.rs"]
mod program;
#[path = "../examples/failover_demo/rates.rs"]
mod rates;
#[path = "../examples/failover_demo/screen.rs"]
mod screen;
#[path = "../examples/failover_demo/stage.rs"]
mod stage;
#[path = "../examples/failover_demo/time.rs"]
mod time;

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use diary::Entry;
use picture::{HostPicture, Picture, Server, State};
use rates::Rates;
use smtp_pool::PoolCounts;

type Error = Box<dyn std::error::Error + Send + Sync>;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A moment after the preferred server went down.
fn outage() -> Picture {
    let mut counts = PoolCounts::default();
    (counts.max_size, counts.total, counts.leased, counts.idle, counts.connecting) = (6, 5, 3, 1, 1);
    let host = |name, address: &str| HostPicture {
        name,
        address: address.to_owned(),
        server: Server::Up(None),
        state: State::Available,
        idle: 1,
        leased: 3,
        connecting: 1,
        last_error: None,
        last_second: 234,
        curve: (0..200).map(|bar| if bar < 190 { 0 } else { 234 }).collect(),
    };
    let primary = HostPicture {
        server: Server::Down(ms(2100)),
        state: State::CoolingDown(ms(640)),
        idle: 0,
        leased: 0,
        connecting: 0,
        last_error: Some("connection refused".to_owned()),
        last_second: 0,
        curve: (0..200).map(|bar| if bar < 190 { 240 - (199 - bar) % 7 * 10 } else { 0 }).collect(),
        ..host("primary", "127.0.0.1:40213")
    };
    let entry = |at, host, text: &str, times| Entry { at: ms(at), host, text: text.to_owned(), times };
    let mut entries = vec![
        entry(4100, 0, "cools down for 1.6 s after 2 failures", 1),
        entry(4100, 0, "connection refused", 1),
        entry(3100, 0, "connection closed: server_closed", 5),
        entry(3000, 0, "goes down: 421 to what comes, and listens no more", 1),
        entry(2900, 1, "works again", 1),
    ];
    entries.extend((0..100).map(|number| entry(number, 1, "an older line", 1)));
    Picture {
        at: ms(64_900),
        hosts: [primary, host("secondary", "127.0.0.1:40214")],
        counts,
        sent: 12_345,
        retries: 3,
        failed: 0,
        unknown: 0,
        opened: 12,
        closed: 7,
        entries,
    }
}

fn drawn(width: usize, height: usize) -> Vec<String> {
    frame::lines(&outage(), width, height).iter().map(ink::Line::plain).collect()
}

#[test]
fn a_terminal_of_80_by_24_shows_all_of_it() {
    let expected = [
        "  smtp-pool  two servers, one of which comes and goes         1:04  Ctrl-C ends ",
        "────────────────────────────────────────────────────────────────────────────────",
        "  HOST       THE POOL SAYS                      IDLE  LEASED  OPENING   SENDS/S ",
        "● primary    cooling down 0.6 s  ━━━━━━━━━━        0       0        0         0 ",
        "  127.0.0.1:40213  down, back in 2.1 s  connection refused",
        "● secondary  available                             1       3        1       234 ",
        "  127.0.0.1:40214  up",
        "",
        "  CONNECTIONS  ■■■■□·  5 of 6: 3 leased, 1 opening, 1 idle; 0 waiting",
        "",
        "  SENDS A SECOND                      a bar is half a second, the tallest 240/s ",
        "             ██▄▅▆▆▇██▄▅▆▆▇██▄▅▆▆▇██▄▅▆▆▇██▄▅▆▆▇██▄▅▆▆▇██▄▅▆▆▇██▄▅▆▆          ",
        "  primary    ███████████████████████████████████████████████████████··········",
        "                                                                    ██████████",
        "  secondary  ·······················································██████████",
        "",
        "  12345 sent   3 tried again   0 failed   0 in doubt   12 opened, 7 closed",
        "",
        "  WHAT HAPPENED LAST",
        "    4.1 s  primary      cools down for 1.6 s after 2 failures",
        "    4.1 s  primary      connection refused",
        "    3.1 s  primary      connection closed: server_closed  ×5",
        "    3.0 s  primary      goes down: 421 to what comes, and listens no more",
        "    2.9 s  secondary    works again",
    ];
    for (drawn, expected) in drawn(80, 24).iter().zip(expected) {
        assert_eq!(drawn, expected);
    }
}

#[test]
fn a_larger_terminal_has_taller_curves_and_a_longer_memory() {
    let drawn = drawn(120, 40);
    assert_eq!(drawn.iter().filter(|line| line.ends_with(&"█".repeat(10))).count(), 4, "{drawn:#?}");
    assert_eq!(drawn.iter().filter(|line| line.contains("an older line")).count(), 12, "{drawn:#?}");
    assert!(drawn[3].ends_with("0       0        0         0 ") && drawn[3].chars().count() == 120, "{drawn:#?}");
}

#[test]
fn whatever_the_size_it_fits() {
    for (width, height) in (0..=200).flat_map(|width| (0..=60).step_by(7).map(move |height| (width, height))) {
        let drawn = drawn(width, height);
        assert_eq!(drawn.len(), height);
        assert!(drawn.iter().all(|line| line.chars().count() <= width), "{width}x{height}: {drawn:#?}");
    }
}

#[test]
fn colours_change_no_character_and_nothing_scrolls() {
    let lines = frame::lines(&outage(), 80, 24);
    let (plain, coloured) = (screen::drawing(&lines, false), screen::drawing(&lines, true));
    let mut bare = coloured;
    for code in [0, 1, 2, 31, 32, 33, 36] {
        bare = bare.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(bare, plain);
    // A line end on the last row would scroll, and would have standard output write in pieces.
    assert!(!plain.contains('\n'));
    assert_eq!(plain.matches("\x1b[2K").count(), 24);
}

#[test]
fn what_a_server_says_cannot_move_the_cursor() {
    let mut picture = outage();
    picture.hosts[0].last_error = Some("\x1b[2J\x07\nno".to_owned());
    let line = frame::lines(&picture, 80, 24)[4].plain();
    assert!(line.ends_with("?[2J??no"), "{line:?}");
}

#[test]
fn rates_are_of_half_seconds_that_are_over() {
    let mut rates = Rates::default();
    for at in [0, 499, 500, 1000, 1100, 999, 3400] {
        rates.count(ms(at));
    }
    // In the half seconds 0 to 6: 2, 1, 3 (one came late), 0, 0, 0, 1.
    assert_eq!(rates.curve(ms(3500), 7), [4, 2, 6, 0, 0, 0, 2]);
    assert_eq!(rates.curve(ms(3499), 8), [0, 0, 4, 2, 6, 0, 0, 0]);
    assert_eq!(rates.last_second(ms(1500)), 4);
    assert_eq!(rates.last_second(ms(9000)), 0);
    // A long silence costs no memory, and what is forgotten is nothing.
    rates.count(Duration::from_secs(1_000_000));
    assert_eq!(rates.last_second(Duration::from_secs(1_000_000) + ms(500)), 1);
    assert_eq!(rates.curve(Duration::from_secs(1_000_000), 3), [0, 0, 0]);
}

#[test]
fn the_plot_goes_down_and_comes_back() {
    for (at, expected) in
        [(0, (false, 3000)), (3000, (true, 4000)), (6999, (true, 1)), (7000, (false, 8000)), (15_000, (true, 4000))]
    {
        assert_eq!(stage::plot(ms(at)), (expected.0, ms(expected.1)), "{at}");
    }
}

#[test]
fn in_a_pipe_it_says_a_line_a_second_and_every_mail_arrives_once() {
    let output = program::example("failover_demo").arg("5").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains('\x1b'), "{said}");
    assert_eq!(said.lines().filter(|line| line.contains(" sent | primary ")).count(), 5, "{said}");
    // It went down, and the other server took over.
    assert!(said.contains(" at the secondary\n") && !said.contains(" 0 at the secondary\n"), "{said}");
    assert!(said.contains(" arrived once, 0 more than once, 0 not at all\n"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_gives_the_terminal_back() {
    // util-linux's `script` gives it a terminal, and turns the byte into a signal as a terminal does.
    let path = program::example("failover_demo").get_program().to_owned();
    // Ctrl-C reaches a shell that waits for the program as well, and dash then ends as if killed: the shell has to step aside.
    let command = format!("exec '{}'", path.to_str().unwrap());
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keyboard, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let mut shown = Vec::new();
    // Until a mail has been sent: without one the program does not call its run a success.
    let is_under_way = |shown: &[u8]| {
        String::from_utf8_lossy(shown).split(" sent").any(|before| before.ends_with(|c| ('1'..='9').contains(&c)))
    };
    while !is_under_way(&shown) {
        let mut piece = [0; 4096];
        let length = screen.read(&mut piece).unwrap();
        assert!(length > 0, "it ended early: {:?}", String::from_utf8_lossy(&shown));
        shown.extend(&piece[..length]);
    }
    keyboard.write_all(b"\x03").unwrap();
    screen.read_to_end(&mut shown).unwrap();
    assert!(terminal.wait().unwrap().success());

    let shown = String::from_utf8(shown).unwrap();
    assert_eq!((shown.matches("\x1b[?1049h").count(), shown.matches("\x1b[?1049l").count()), (1, 1));
    let (_, after) = shown.split_once("\x1b[?25h\x1b[?1049l").unwrap();
    assert!(after.contains(" arrived once, 0 more than once, 0 not at all") && !after.contains('\x1b'), "{after:?}");
}
