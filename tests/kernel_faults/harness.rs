//! Lists and runs the cases, each in its own process, and tells what was not run.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::common::now;
use super::role;
use super::world::{self, World};

/// Set for the process that one case runs in: its name.
pub const CASE: &str = "SMTP_POOL_KERNEL_CASE";
/// Set where every case has to run.
const REQUIRED: &str = "SMTP_POOL_REQUIRE_NAMESPACES";

pub struct Case {
    /// The fault, as the catalogue numbers it.
    pub k: &'static str,
    pub name: &'static str,
    pub world: World,
    pub run: fn(),
}

macro_rules! case {
    ($k:literal, $world:expr, $module:ident :: $name:ident) => {
        Case { k: $k, name: stringify!($name), world: $world, run: $module::$name }
    };
}
pub(crate) use case;

enum Outcome {
    Passed,
    Failed(String),
    NotRun(String),
}

/// What the command line asks for, in the words of Rust's own test harness.
#[derive(Default)]
struct Wish {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    /// Only tests that are ignored by default; there are none.
    ignored: bool,
    shows_output: bool,
    threads: Option<usize>,
}

impl Wish {
    fn of(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut wish = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => wish.exact = true,
                "--list" => wish.list = true,
                "--ignored" => wish.ignored = true,
                "--nocapture" | "--no-capture" | "--show-output" => wish.shows_output = true,
                "--skip" => wish.skips.extend(arguments.next()),
                "--test-threads" => wish.threads = arguments.next().and_then(|number| number.parse().ok()),
                "--color" | "--format" | "--logfile" | "-Z" => drop(arguments.next()),
                flag if flag.starts_with('-') => {
                    if let Some(number) = flag.strip_prefix("--test-threads=") {
                        wish.threads = number.parse().ok();
                    }
                }
                filter => wish.filters.push(filter.to_owned()),
            }
        }
        wish
    }

    fn includes(&self, case: &Case) -> bool {
        let full = format!("{} {}", case.k, case.name);
        let fits = |filter: &String| {
            if self.exact { case.name == filter || full == *filter } else { full.contains(filter.as_str()) }
        };
        !self.ignored && (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skips.iter().any(fits)
    }
}

pub fn run(cases: &[Case]) -> ExitCode {
    if let Some(role) = role::asked_for() {
        role.play();
        return ExitCode::SUCCESS;
    }
    if let Ok(name) = std::env::var(CASE) {
        let case = cases.iter().find(|case| case.name == name).expect("the parent names a case");
        case.world.settle_in();
        // A panic is the failure, and its text what the parent shows.
        (case.run)();
        return ExitCode::SUCCESS;
    }
    let wish = Wish::of(std::env::args().skip(1));
    let chosen: Vec<_> = cases.iter().filter(|case| wish.includes(case)).collect();
    if wish.list {
        chosen.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    report(&run_all(&chosen, &wish), &chosen, cases.len() - chosen.len())
}

fn run_all(chosen: &[&Case], wish: &Wish) -> Vec<Outcome> {
    println!("\nrunning {} tests", chosen.len());
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    let threads = wish.threads.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let outcome = run_one(case, wish);
                    outcomes.lock().push((case.name, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner();
    outcomes.sort_by_key(|(name, _)| chosen.iter().position(|case| case.name == *name));
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn run_one(case: &Case, wish: &Wish) -> Outcome {
    let Case { k, name, .. } = case;
    let start = now();
    let outcome = match case.world.missing() {
        Some(what) if std::env::var(REQUIRED).is_ok_and(|value| value == "1") => {
            Outcome::Failed(format!("not run, and {REQUIRED} is set: {what}"))
        }
        Some(what) => Outcome::NotRun(what),
        None => match world::live(case) {
            Ok(output) => {
                if wish.shows_output {
                    eprint!("{output}");
                }
                Outcome::Passed
            }
            Err(output) => Outcome::Failed(output),
        },
    };
    let took = now() - start;
    match &outcome {
        Outcome::Passed => println!("test {k} {name} ... ok ({took:.1?})"),
        Outcome::Failed(_) => println!("test {k} {name} ... FAILED ({took:.1?})"),
        Outcome::NotRun(_) => println!("test {k} {name} ... NOT RUN"),
    }
    outcome
}

/// The last line says which faults were met and which were not.
fn report(outcomes: &[Outcome], chosen: &[&Case], filtered: usize) -> ExitCode {
    let (mut passed, mut failed, mut not_run) = (0, 0, Vec::new());
    for (case, outcome) in chosen.iter().zip(outcomes) {
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Failed(output) => {
                failed += 1;
                println!("\n---- {} {} ----\n{output}", case.k, case.name);
            }
            Outcome::NotRun(what) => {
                eprintln!("not run: {} {}: {what}", case.k, case.name);
                not_run.push(case.k);
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {} ignored; 0 measured; {filtered} filtered out",
        not_run.len()
    );
    let of_all = passed + failed;
    let what = if not_run.is_empty() { String::new() } else { format!(": {}", not_run.join(" ")) };
    eprintln!("kernel faults: {of_all} run, {} not run{what}", not_run.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
