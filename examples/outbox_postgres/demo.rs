//! Everything at once: a private PostgreSQL, a relay, workers that are killed, and the relay's count in the end.

use std::convert::Infallible;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::audit::Audit;
use crate::database::{self, Error};
use crate::private_postgres::PrivatePostgres;
use crate::relay::Relay;
use crate::{operator, outbox, session, worker};

const LANES: usize = 2;
/// How often to look after the workers.
const TICK: Duration = Duration::from_millis(50);
/// How many of the unknown mails.
const SHOWN: usize = 3;
/// Longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(600);
/// From so many mails on there is time to kill somebody.
const ENOUGH: usize = 500;

/// How much of it.
pub struct Plan {
    mails: usize,
    workers: usize,
    between_kills: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { mails: 2_000, workers: 4, between_kills: Duration::from_secs(1) }
    }
}

impl Plan {
    /// `[MAILS [WORKERS [SECONDS_BETWEEN_KILLS]]]`
    pub fn from_arguments(arguments: &[&str]) -> Result<Self, Error> {
        let mut plan = Self::default();
        if let Some(mails) = arguments.first() {
            plan.mails = mails.parse()?;
        }
        if let Some(workers) = arguments.get(1) {
            plan.workers = workers.parse()?;
        }
        if let Some(seconds) = arguments.get(2) {
            plan.between_kills = Duration::try_from_secs_f64(seconds.parse()?)?;
        }
        Ok(plan)
    }
}

pub fn run(plan: Plan) -> Result<(), Error> {
    let stop = worker::stop_on_signal()?;
    let (url, _postgres) = match std::env::var("DATABASE_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let postgres = PrivatePostgres::start()?;
            (postgres.url.clone(), Some(postgres))
        }
    };
    let mut client = database::connect(&url)?;
    outbox::init(&mut client)?;
    if !outbox::is_empty(&mut client)? {
        return Err("this outbox has mail in it, which the demo would send to its own relay".into());
    }
    outbox::enqueue_some(&mut client, plan.mails)?;
    let relay = Relay::start()?;

    let start = now();
    let mut crew = Crew { url, smtp: relay.url(), workers: Vec::new(), killed: 0 };
    for _ in 0..plan.workers {
        crew.hire()?;
    }
    println!("{} workers with {LANES} lanes each; one is killed every {:?}.", plan.workers, plan.between_kills);
    let mut next_kill = start + plan.between_kills;
    let mut next_line = start + Duration::from_secs(1);
    while crew.is_at_work()? {
        if is_stopped_after(&stop, TICK) {
            // Whoever has not drained by now is killed, which is what this is about.
            return Err("stopped".into());
        }
        let now = now();
        if now - start > PATIENCE {
            return Err(format!("not done after {PATIENCE:?}").into());
        }
        if now >= next_kill {
            crew.kill_one()?;
            next_kill = now + plan.between_kills;
        }
        if now >= next_line {
            let counts = outbox::counts(&mut client)?;
            let counts: Vec<_> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
            println!("{:>4} s: {}; {} killed", (now - start).as_secs(), counts.join(", "), crew.killed);
            next_line += Duration::from_secs(1);
        }
    }
    let took = now() - start;

    session::mark_abandoned(&mut client)?;
    let audit = Audit::of(&mut client, relay.taken()?)?;
    println!("\nWhat may or may not have been sent, as `recover` shows it (the first {SHOWN}):\n");
    operator::recover(&mut client, SHOWN)?;
    report(&plan, &audit, took, crew.killed)
}

fn report(plan: &Plan, audit: &Audit, took: Duration, killed: usize) -> Result<(), Error> {
    println!("\n{:<10}{:>22}{:>22}{:>22}", "", "never taken by relay", "taken once", "taken more often");
    for (state, [never, once, more]) in &audit.states {
        println!("{state:<10}{never:>22}{once:>22}{more:>22}");
    }
    let rate = plan.mails as f64 / took.as_secs_f64();
    println!("\n{} mails, {} workers, {killed} killed, {took:.1?}: {rate:.0} mails/s.", plan.mails, plan.workers);
    for line in &audit.broken {
        eprintln!("BROKEN: {line}");
    }
    if !audit.broken.is_empty() {
        return Err(format!("the promise is broken {} times", audit.broken.len()).into());
    }
    if plan.mails >= ENOUGH && killed == 0 {
        return Err("nobody was killed, so nothing was shown".into());
    }
    println!("Each was sent exactly once, or refused, or is marked as unknown.");
    Ok(())
}

/// The worker processes.
struct Crew {
    url: String,
    smtp: String,
    workers: Vec<Child>,
    killed: usize,
}

impl Crew {
    fn hire(&mut self) -> Result<(), Error> {
        let worker = Command::new(std::env::current_exe()?)
            .args(["work", "--until-empty"])
            .env("DATABASE_URL", &self.url)
            .env("SMTP_URL", &self.smtp)
            .env("OUTBOX_LANES", LANES.to_string())
            .env("OUTBOX_RETRY_SECONDS", "1")
            .env("OUTBOX_LEASE_SECONDS", "60")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        self.workers.push(worker);
        Ok(())
    }

    /// By SIGKILL: no destructor runs, nothing is written down.
    fn kill_one(&mut self) -> Result<(), Error> {
        if self.workers.is_empty() {
            return Ok(());
        }
        let mut worker = self.workers.swap_remove(fastrand::usize(..self.workers.len()));
        let killed = worker.kill();
        worker.wait()?;
        killed?;
        self.killed += 1;
        self.hire()
    }

    /// Whether somebody has not ended by himself yet.
    fn is_at_work(&mut self) -> Result<bool, Error> {
        let mut at_work = Vec::new();
        for mut worker in self.workers.drain(..) {
            match worker.try_wait()? {
                None => at_work.push(worker),
                Some(status) if status.success() => {}
                Some(status) => return Err(format!("a worker failed: {status}").into()),
            }
        }
        self.workers = at_work;
        Ok(!self.workers.is_empty())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            drop(worker.kill());
            drop(worker.wait());
        }
    }
}

fn is_stopped_after(stop: &Receiver<Infallible>, pause: Duration) -> bool {
    !matches!(stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
}

#[expect(clippy::disallowed_methods, reason = "a demo measures the time that passes")]
fn now() -> Instant {
    Instant::now()
}
