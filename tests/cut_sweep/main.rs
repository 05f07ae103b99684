//! The connection is cut at every byte of the dialogue, in both directions, and every outcome is what the server's own count allows.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

#[path = "../common/mod.rs"]
mod common;
mod dialogue;
mod judge;
mod wire;

use smtp_pool::testing::{Cut, Security};
use dialogue::*;
use wire::*;

#[test]
fn trial() {
    for security in [Security::Plain, Security::StartTls, Security::ImplicitTls] {
        for grouping in [Grouping::Pipelined, Grouping::Lockstep] {
            for reused in [false, true] {
                let way = Way { security, grouping, reused };
                let recorded = Recorded::of(way);
                println!("{way:?} {recorded:?}");
                let bench = Bench::new(way);
                let mut number = 0;
                for cut in [Cut::Fin, Cut::Reset, Cut::Silence] {
                    let (mut runs, mut cuts, mut lates) = (0, 0, 0);
                    let start = common::now();
                    for direction in [Direction::FromClient, Direction::FromServer] {
                        let (all, near) = recorded.places(direction);
                        println!("{} {}", all.len(), near.len());
                        for after in all.into_iter().step_by(if security == Security::Plain && cut != Cut::Silence { 1 } else { 37 }) {
                            number += 1;
                            runs += 1;
                            let verdict = judge::judge(&bench, &recorded, Plan { direction, after, cut }, number);
                            cuts += usize::from(verdict.was_cut);
                            lates += usize::from(verdict.late.is_some());
                            if let Some(untrue) = verdict.untrue { println!("{untrue}"); }
                        }
                    }
                    println!("{cut:?} {runs} {cuts} {lates} {:?}", start.elapsed());
                }
            }
        }
    }
}
