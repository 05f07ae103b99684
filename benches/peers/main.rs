//! Every figure that SPEC §12 asks for, measured beside the peers in the same run.
//!
//! ```text
//! tests/servers/get-pkgs.sh                               # once: Postfix with smtp-sink and smtp-source, as root, on Debian
//! cargo bench --bench peers                               # everything; fails when a promise is not kept
//! cargo bench --bench peers -- throughput outage          # these measurements only
//! cargo bench --bench peers -- --quick                    # a short run that only has to work
//! cargo bench --bench peers -- --chart FILE.svg           # draws the throughput; --fleet-chart FILE.svg the simulation
//! ```
//!
//! What is compared runs by turns, and only ratios within one round are compared: the servers share the machine with their clients,
//! and perhaps with others. All figures are also in `target/peers/peers.json`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a bench may panic and needs no manual")]

mod chart;
mod client;
mod machine;
mod mail;
mod paced;
mod paired;
mod relay;
mod report;
mod row;
mod strace;

// Parts of the crate that no public door leads to, so that they are measured as they are and not as they are wrapped: the pool over
// connections that cost nothing, a host's cooldown under a clock of our own, the encoding of content. They find each other by the
// names that they have in the crate.
#[path = "../../src/blame.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod blame;
#[path = "../../src/smtp/body.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod body;
#[path = "../../src/cancel.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod cancel;
#[path = "../../src/clock.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod clock;
#[path = "../../src/pool/cooldown.rs"]
#[allow(clippy::duplicate_mod, reason = "the pool keeps its own to itself; the fleet has no pool")]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod cooldown;
#[path = "../../src/endpoint.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod endpoint;
#[path = "../../src/error.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod error;
#[path = "../../src/event.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod event;
#[path = "../../src/lane.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod lane;
#[path = "../../src/observer/mod.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod observer;
#[path = "../../src/pool/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "see cooldown")]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod pool;
#[path = "../../src/recipient.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod recipient;
#[path = "../../src/reply.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod reply;
#[path = "../../src/stage.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod stage;
#[path = "../../src/stats.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod stats;
#[path = "../../src/sync.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod sync;
#[path = "../../src/trace/mod.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod trace;
#[path = "../../src/undisclosed.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod undisclosed;

// Servers and ports of the tests.
#[path = "../../tests/common/doors.rs"]
mod doors;
#[path = "../../tests/common/postfix.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod postfix;
#[path = "../../tests/common/sink.rs"]
mod sink;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use client::{Load, Peer, Server};
use clock::now;
use paired::Effort;
use report::Report;

/// What to measure, and how thoroughly.
#[derive(Debug, Default)]
pub struct Plan {
    pub is_quick: bool,
    /// Names of measurements; none means all.
    names: Vec<String>,
    chart: Option<PathBuf>,
    fleet_chart: Option<PathBuf>,
}

impl Plan {
    fn of(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan = Self::default();
        while let Some(argument) = arguments.next() {
            let mut file = || arguments.next().map(PathBuf::from).ok_or(format!("{argument} needs a file"));
            match argument.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--quick" => plan.is_quick = true,
                "--chart" => plan.chart = Some(file()?),
                "--fleet-chart" => plan.fleet_chart = Some(file()?),
                name if row::ALL.iter().any(|row| row.name == name) => plan.names.push(argument),
                _ => {
                    let names: Vec<&str> = row::ALL.iter().map(|row| row.name).collect();
                    return Err(format!(
                        "{argument}: not known\nusage: cargo bench --bench peers -- [--quick] [--chart FILE] \
                         [--fleet-chart FILE] [MEASUREMENT…]\nmeasurements: {}",
                        names.join(" ")
                    ));
                }
            }
        }
        Ok(plan)
    }

    /// So many rounds of so long a slice each, in a full run.
    fn effort(&self, rounds: usize, slice: Duration) -> Effort {
        if self.is_quick { Effort { rounds: 2, slice: slice / 10 } } else { Effort { rounds, slice } }
    }

    /// A number of times to do something, in a full run.
    fn times(&self, full: usize, quick: usize) -> usize {
        if self.is_quick { quick } else { full }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // A process of its own for one peer, to be looked at from outside: see `trace.rs`.
    if let [flag, peer, port, size, messages] = &arguments[..] {
        if flag == strace::SEND {
            let load = Load::new(Server::plain(port.parse().unwrap()), 1, size.parse().unwrap());
            let peer = Peer::of_key(peer).unwrap();
            peer.connect(&load).unwrap().work(messages.parse().unwrap());
            return ExitCode::SUCCESS;
        }
    }
    let plan = match Plan::of(arguments.into_iter()) {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let machine = machine::describe();
    println!("{}", machine::in_words(&machine));
    if plan.is_quick {
        println!("a short run: it shows that everything works; its figures mean nothing");
    }

    let mut report = Report::default();
    let started = now();
    for row in row::ALL {
        if plan.names.is_empty() || plan.names.iter().any(|name| name == row.name) {
            (row.measure)(&plan, &mut report);
        }
    }
    println!("\nWhat SPEC §12 asks for ({:.0} s)\n{}", (now() - started).as_secs_f64(), report.promises());

    // Benches run in the package's own folder.
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let json = target.join("peers/peers.json");
    let written = report.write_json(&json, &machine, plan.is_quick).map_err(|error| error.to_string());
    let drawn =
        written.and_then(|()| plan.chart.as_deref().map_or(Ok(()), |path: &Path| chart::draw_bars(path, &report)));
    if let Err(why) = drawn {
        eprintln!("{why}");
        return ExitCode::FAILURE;
    }
    println!("{} has it all", json.display());
    match report.shortfalls() {
        0 => ExitCode::SUCCESS,
        _ if plan.is_quick => ExitCode::SUCCESS,
        short => {
            eprintln!("{short} of them not kept");
            ExitCode::FAILURE
        }
    }
}
