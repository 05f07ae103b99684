//! Two servers, one of which goes down and comes back, and a pool that sends through it all, to be watched.
//!
//! ```text
//! cargo run --example failover_demo                # half a minute of it; q and Enter, or Ctrl-C, ends it sooner
//! cargo run --example failover_demo -- 300         # five minutes
//! cargo run --example failover_demo | cat          # a line a second for ten seconds
//! ```
//!
//! At the end the servers are asked what they have: the program succeeds if each mail is there exactly once. `NO_COLOR` is honoured.
//!
//! What happens, every twelve seconds: the preferred server says 421 to whoever begins a mail and listens no more. Each connection to it
//! is given up when its server says so, and its mail goes to the other server within the same call. The pool tries the preferred one
//! again when its cooldown is over, one caller at a time, and brings the traffic back when it answers.

#![allow(unreachable_pub, missing_docs, reason = "a program has no users but its own")]

mod audit;
mod diary;
mod frame;
mod ink;
mod load;
mod picture;
mod rates;
mod screen;
mod stage;
mod time;

use std::convert::Infallible;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};

use load::Load;
use picture::Picture;
use screen::Screen;
use stage::Stage;

pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Ten pictures a second look alive, and cost nothing.
const FRAME: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("failover_demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether each mail arrived exactly once.
fn run() -> Result<bool, Error> {
    let is_live = io::stdout().is_terminal();
    let length = match std::env::args().nth(1) {
        Some(seconds) => Duration::from_secs(seconds.parse().map_err(|_| "usage: failover_demo [SECONDS]")?),
        None if is_live => Duration::from_secs(30),
        None => Duration::from_secs(10),
    };
    let stop = stop_on_signal(is_live)?;
    let stage = Stage::set()?;
    let load = Load::new(&stage);
    // Its drop, in an early return and in a panic as well, gives the terminal back.
    let screen = if is_live { Some(Screen::enter()?) } else { None };

    thread::scope(|scope| {
        let running = load.start(scope);
        let played = play(&stage, screen.as_ref(), length, &stop);
        drop(running);
        played
    })?;
    drop(screen);

    let audit = audit::Audit::of(&stage, &load);
    print!("{audit}");
    Ok(audit.is_exact())
}

/// Follows the plot, and shows it, until the time is over or somebody has asked to stop.
fn play(stage: &Stage, screen: Option<&Screen>, length: Duration, stop: &Receiver<Infallible>) -> Result<(), Error> {
    let mut next_line = Duration::ZERO;
    loop {
        let at = stage.at();
        if at >= length {
            return Ok(());
        }
        stage.follow_the_plot(at);
        let picture = Picture::of(stage, at);
        match screen {
            Some(screen) => screen.show(&picture)?,
            None if at >= next_line => {
                println!("{}", frame::line(&picture));
                next_line += Duration::from_secs(1);
            }
            None => {}
        }
        select! {
            recv(stop) -> _ => return Ok(()),
            default(FRAME) => {}
        }
    }
}

/// A channel that is disconnected by Ctrl-C and SIGTERM, and, where somebody watches, by a line with a q.
fn stop_on_signal(has_keyboard: bool) -> Result<Receiver<Infallible>, Error> {
    let (running, stop) = bounded::<Infallible>(0);
    let running = std::sync::Arc::new(std::sync::Mutex::new(Some(running)));
    let by_key = std::sync::Arc::clone(&running);
    let end = |running: &std::sync::Mutex<Option<_>>| drop(running.lock().map(|mut running| running.take()));
    ctrlc::set_handler(move || end(&running))?;
    if has_keyboard && io::stdin().is_terminal() {
        // Reads until the process ends.
        thread::spawn(move || {
            if io::stdin().lines().map_while(Result::ok).any(|line| line.trim() == "q") {
                end(&by_key);
            }
        });
    }
    Ok(stop)
}
