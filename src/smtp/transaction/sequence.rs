//! The commands that bring a message's envelope about.

use crate::event::Step;

/// The commands of one envelope, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence {
    pub(super) reset: bool,
    pub(super) recipients: usize,
    pub(super) data: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Rset,
    Mail,
    Rcpt(usize),
    Data,
}

impl Sequence {
    pub(super) const fn len(self) -> usize {
        self.reset as usize + 1 + self.recipients + self.data as usize
    }

    pub(super) const fn at(self, index: usize) -> Command {
        match (index, self.reset) {
            (0, true) => Command::Rset,
            (1, true) | (0, false) => Command::Mail,
            (index, reset) => {
                let recipient = index - 1 - reset as usize;
                if recipient < self.recipients { Command::Rcpt(recipient) } else { Command::Data }
            }
        }
    }
}

impl Command {
    pub(super) const fn step(self) -> Step {
        match self {
            Self::Rset => Step::Rset,
            Self::Mail => Step::Mail,
            Self::Rcpt(_) => Step::Rcpt,
            Self::Data => Step::Data,
        }
    }
}
