//! The mailing: block by block, each on the disk before it leaves.

use std::fs::{self, File};
use std::io;

use indicatif::{ProgressBar, ProgressStyle};
use lettre::Message;
use lettre::message::Mailbox;
use smtp_pool::{BatchOptions, CancelToken, Lane, SendOptions};

use crate::Error;
use crate::drain::Drain;
use crate::outcome::{self, State};
use crate::recipients::{self, Recipient};
use crate::resume::ResumeFile;
use crate::settings::Settings;
use crate::summary::{End, Summary};

/// How many mails begin at a time: what is unknown at most after this program was killed, and how many share a wait for the disk. Larger
/// blocks are a little faster, because connections have nothing to do while the last mails of a block are on their way.
const BLOCK: usize = 25;

pub fn run(settings: &Settings) -> Result<Summary, Error> {
    let list = File::open(&settings.list).map_err(|error| format!("{}: {error}", settings.list.display()))?;
    let (recipients, skipped) = recipients::read(list)?;
    for skipped in &skipped {
        eprintln!("{skipped}");
    }
    let from: Mailbox = settings.from.parse()?;

    let mut resume = ResumeFile::open(&settings.resume)?;
    let due: Vec<&Recipient> = recipients.iter().filter(|recipient| resume.may_be_sent(&recipient.key)).collect();

    let sender = settings.sender()?;
    let bar = bar(due.len());
    let token = CancelToken::new();
    let drain = Drain::on_signal(&sender, &token, &bar)?;
    // In a program that also sends mail that somebody waits for, that mail goes first.
    let options = BatchOptions::new().send_options(SendOptions::new().lane(Lane::Bulk).cancel(&token));

    let mut end = End::OfTheList;
    for block in due.chunks(BLOCK) {
        let mut mails = Vec::with_capacity(block.len());
        for recipient in block {
            mails.push(Mail::to(recipient, &from)?);
        }
        if drain.is_asked_for() {
            end = End::Asked;
            break;
        }
        resume.begin(mails.iter().map(|mail| (mail.key, mail.id.as_str())))?;

        let mut written: io::Result<()> = Ok(());
        sender.send_all_with(mails.iter().map(|mail| &mail.message), &options, |progress| {
            let mail = &mails[progress.index];
            let (state, note) = outcome::of(progress.outcome);
            if let Err(error) = resume.note(mail.key, &mail.id, state, &note) {
                // The rest of the block is on its way. Its outcomes are lost, which leaves them unknown.
                written = Err(error);
            }
            if let Some(error) = progress.outcome.as_ref().err().filter(|error| outcome::ends_the_run(error)) {
                end = End::Failed(error.to_string());
            } else if state != State::Sent {
                bar.suspend(|| eprintln!("{}  {}: {note}", state.as_str(), mail.key));
            }
            bar.inc(1);
        });
        written?;
        if drain.is_asked_for() {
            end = End::Asked;
        }
        if bar.is_hidden() {
            println!("{} of {}", bar.position(), due.len());
        }
        if !matches!(end, End::OfTheList) {
            break;
        }
    }
    bar.finish_and_clear();
    resume.sync()?;
    let summary = Summary::of(&resume, &recipients, &skipped, end, settings);
    if settings.is_demo && summary.is_complete() {
        fs::remove_file(&settings.resume)?;
    }
    Ok(summary)
}

/// A mail that is ready to go.
struct Mail<'a> {
    key: &'a str,
    /// Its Message-ID, by which a person finds it in the log of a relay.
    id: String,
    message: Message,
}

impl<'a> Mail<'a> {
    fn to(recipient: &'a Recipient, from: &Mailbox) -> Result<Self, Error> {
        let id = format!("<{:016x}.bulk@{}>", fastrand::u64(..), from.email.domain());
        let greeting =
            recipient.mailbox.name.as_deref().map_or_else(|| "Hello".to_owned(), |name| format!("Dear {name}"));
        let message = Message::builder()
            .message_id(Some(id.clone()))
            .from(from.clone())
            .to(recipient.mailbox.clone())
            .subject("We are moving")
            .body(format!("{greeting},\n\nfrom the first of the month you find us in the house next door.\n"))?;
        Ok(Self { key: &recipient.key, id, message })
    }
}

fn bar(mails: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32.green/black.bright} {pos}/{len}  {per_sec}  {eta} left");
    ProgressBar::new(mails as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
