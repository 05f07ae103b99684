//! The end: what the servers have, by their own count.

use std::fmt;

use crate::load::{self, Load};
use crate::stage::Stage;

pub struct Audit {
    mails: u64,
    once: u64,
    missing: u64,
    twice: u64,
    by_server: [u64; 2],
    given_up: Vec<(u64, String)>,
    opened: u64,
}

impl Audit {
    pub fn of(stage: &Stage, load: &Load<'_>) -> Self {
        let mut audit = Self {
            mails: load.mails(),
            once: 0,
            missing: 0,
            twice: 0,
            by_server: [0; 2],
            given_up: load.given_up().clone(),
            opened: stage.sender.status().created,
        };
        for number in 0..audit.mails {
            let taken = [0, 1].map(|server: usize| stage.servers[server].accepted(&load::id(number)) as u64);
            match taken[0] + taken[1] {
                0 => audit.missing += 1,
                1 => audit.once += 1,
                _ => audit.twice += 1,
            }
            audit.by_server[0] += taken[0];
            audit.by_server[1] += taken[1];
        }
        audit
    }

    /// Whether each mail is there exactly once, and its sender knows.
    pub fn is_exact(&self) -> bool {
        self.mails > 0 && self.once == self.mails && self.given_up.is_empty()
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mails, once, missing, twice, by_server: [primary, secondary], given_up, opened } = self;
        writeln!(f, "{mails} mails over {opened} connections. By the servers' own count:")?;
        writeln!(f, "  {once} arrived once, {twice} more than once, {missing} not at all")?;
        writeln!(f, "  {primary} at the primary, {secondary} at the secondary")?;
        for (number, error) in given_up {
            writeln!(f, "  not known to have arrived: mail {number}: {error}")?;
        }
        Ok(())
    }
}
