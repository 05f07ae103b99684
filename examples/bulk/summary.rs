//! What a run says at its end.

use std::fmt;

use crate::outcome::State;
use crate::recipients::{Recipient, Skipped};
use crate::resume::ResumeFile;
use crate::settings::Settings;

/// Why a run has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    OfTheList,
    /// By Ctrl-C or SIGTERM.
    Asked,
    /// By what would have met the next mail too.
    Failed(String),
}

/// The whole list, earlier runs included.
pub struct Summary {
    sent: usize,
    refused: usize,
    unknown: Vec<(String, String)>,
    left: usize,
    skipped: usize,
    end: End,
    resume: String,
    relay: Option<(usize, usize)>,
}

impl Summary {
    pub fn of(
        resume: &ResumeFile,
        recipients: &[Recipient],
        skipped: &[Skipped],
        end: End,
        settings: &Settings,
    ) -> Self {
        let mut summary = Self {
            sent: 0,
            refused: 0,
            unknown: Vec::new(),
            left: recipients.iter().filter(|recipient| resume.may_be_sent(&recipient.key)).count(),
            skipped: skipped.len(),
            end,
            resume: settings.resume.display().to_string(),
            relay: settings.relay.as_ref().map(|relay| relay.count()),
        };
        for (key, state, id) in resume.states() {
            match state {
                State::Sent => summary.sent += 1,
                State::Refused => summary.refused += 1,
                State::Unknown | State::Begun => summary.unknown.push((key.to_owned(), id.to_owned())),
                State::Later => {}
            }
        }
        summary.unknown.sort();
        summary
    }

    /// Whether there is nothing left that another run could do.
    pub const fn is_complete(&self) -> bool {
        self.left == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, refused, unknown, left, skipped, end, resume, relay } = self;
        writeln!(
            f,
            "{sent} sent, {refused} refused, {} unknown, {left} left, {skipped} lines skipped.",
            unknown.len()
        )?;
        if !unknown.is_empty() {
            writeln!(f, "May or may not have been sent, and will not be sent again unless you say so:")?;
            for (key, id) in unknown {
                writeln!(f, "  {key}  {id}")?;
            }
        }
        if let Some((mails, twice)) = relay {
            writeln!(f, "The embedded server took {mails} mails in this run; {twice} recipients have more than one.")?;
        }
        match end {
            End::OfTheList => {}
            End::Asked => writeln!(f, "Stopped as asked.")?,
            End::Failed(why) => writeln!(f, "Stopped, because the next mail would have met this too: {why}")?,
        }
        if *left > 0 {
            writeln!(f, "To go on, start it again as before. What has been done is in {resume}.")?;
        }
        Ok(())
    }
}
