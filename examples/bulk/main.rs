//! One mail to each recipient of a CSV file, from a program that may be killed at any moment and started again.
//!
//! ```text
//! cargo run --example bulk                                    # the list beside this file, to an embedded server
//! cargo run --example bulk -- recipients.csv                  # … to your own list
//!
//! export SMTP_URL=smtp://user:password@relay.example.com:587 SMTP_FROM=news@example.com
//! cargo run --example bulk -- recipients.csv                  # … to a real server. Mind the list.
//! grep ^unknown recipients.csv.resume                         # what may or may not have been sent
//! ```
//!
//! The list has the columns `name` and `email`. Beside it grows a resume file; the same command again goes on from where it ended.
//! Ctrl-C drains: what is under way is finished and written down. A second Ctrl-C cuts it. `SMTP_CA_FILE` names a PEM file with a
//! further root certificate to trust.
//!
//! # What it promises
//!
//! Nobody is sent the mail twice, whatever happens to this program or its machine. Everybody is sent it once, or has been refused with a
//! reason, or is `unknown` for a person to decide, or is left for the next run.
//!
//! # Why
//!
//! - That a mail *has begun* is on the disk before its first byte leaves (`resume.rs`). What has begun and has no outcome may have been
//!   accepted: it is `unknown`, and is not sent again.
//! - Mails begin in blocks, with one wait for the disk for each. When the program is killed, no more than a block is unknown.
//! - An outcome needs no wait: if the machine loses it, a mail is unknown that need not be.
//! - A recipient is known by the address, not by the line, so the list may be sorted, mended and added to between two runs. An address
//!   that is there twice gets one mail.
//!
//! A person settles an unknown one by a line at the end of the resume file, `sent`, a tab and the address if the relay's log has the
//! Message-ID, `later`, a tab and the address if it has not.

#![allow(unreachable_pub, missing_docs, reason = "a program has no users but its own")]

mod drain;
mod mailing;
mod outcome;
mod recipients;
mod relay;
mod resume;
mod settings;
mod summary;

use std::process::ExitCode;

use settings::Settings;

pub type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match run() {
        Ok(summary) => {
            print!("{summary}");
            if summary.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("bulk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<summary::Summary, Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let settings = match &arguments[..] {
        [] => Settings::of_the_demo()?,
        [list] if !list.starts_with('-') => Settings::for_list(list)?,
        _ => return Err("usage: bulk [RECIPIENTS.csv]".into()),
    };
    mailing::run(&settings)
}
