//! The mailing: block by block, each on the disk before it leaves.

use std::fmt;
use std::fs::{self, File};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use lettre::Message;
use lettre::message::Mailbox;
use smtp_pool::{BatchOptions, CancelToken, Lane, SendOptions, SmtpSender};

use crate::Error;
use crate::drain::Drain;
use crate::outcome;
use crate::recipients::{self, Recipient};
use crate::resume::ResumeFile;
use crate::settings::Settings;
use crate::summary::{End, Summary};

/// How many mails begin at a time: what is unknown at most after this program was killed, and how many share a wait for the disk. Larger
/// blocks are a little faster, because connections have nothing to do while the last mails of a block are on their way.
const BLOCK: usize = 25;

/// As many as bulk may have of the sender's eight connections (`PoolOptions::interactive_reserve`): more would wait for each other.
const PARALLELISM: usize = 6;

pub fn run(settings: &Settings) -> Result<Summary, Error> {
    let list = File::open(&settings.list).map_err(|error| format!("{}: {error}", settings.list.display()))?;
    let (recipients, skipped) = recipients::read(list)?;
    for skipped in &skipped {
        eprintln!("{skipped}");
    }
    let from: Mailbox = settings.from.parse()?;

    let resume = ResumeFile::open(&settings.resume)?;
    let sender = settings.sender()?;
    let (bar, token) = (bar(), CancelToken::new());
    let drain = Drain::on_signal(&sender, &token, &bar)?;
    // In a program that also sends mail that somebody waits for, that mail goes first.
    let send = SendOptions::new().lane(Lane::Bulk).cancel(&token);
    let options = BatchOptions::new().parallelism(PARALLELISM).send_options(send);
    let mut mailing = Mailing { sender, options, from, resume, drain, bar };

    // Those that were refused for now have their second try when everybody had a first one.
    let mut end = End::OfTheList;
    for _ in 0..2 {
        if end == End::OfTheList {
            end = mailing.send_to_all(&recipients)?;
        }
    }
    let Mailing { resume, bar, .. } = mailing;
    bar.finish_and_clear();
    resume.sync()?;
    let summary = Summary::of(&resume, &recipients, &skipped, end, settings);
    if settings.is_demo && summary.is_complete() {
        fs::remove_file(&settings.resume)?;
    }
    Ok(summary)
}

struct Mailing {
    sender: SmtpSender,
    options: BatchOptions,
    from: Mailbox,
    resume: ResumeFile,
    drain: Drain,
    bar: ProgressBar,
}

impl Mailing {
    /// Sends to everybody who may be sent to.
    fn send_to_all(&mut self, recipients: &[Recipient]) -> Result<End, Error> {
        let due: Vec<_> = recipients.iter().filter(|recipient| self.resume.may_be_sent(&recipient.key)).collect();
        self.bar.inc_length(due.len() as u64);
        for block in due.chunks(BLOCK) {
            if self.drain.is_asked_for() {
                return Ok(End::Asked);
            }
            let failed = self.send_block(block)?;
            if self.bar.is_hidden() {
                println!("{} of {}", self.bar.position(), self.bar.length().unwrap_or_default());
            }
            match failed {
                // What was not sent because of it is no failure of the mails.
                _ if self.drain.is_asked_for() => return Ok(End::Asked),
                Some(why) => return Ok(End::Failed(why)),
                None => {}
            }
        }
        Ok(End::OfTheList)
    }

    /// Sends to these. What is returned would have met the next mail too.
    fn send_block(&mut self, block: &[&Recipient]) -> Result<Option<String>, Error> {
        let Self { sender, options, from, resume, bar, .. } = self;
        let mails = block.iter().map(|recipient| Mail::to(recipient, from)).collect::<Result<Vec<_>, _>>()?;
        resume.begin(mails.iter().map(|mail| (mail.key, mail.id.as_str())))?;

        let (mut failed, mut written) = (None, Ok(()));
        sender.send_all_with(mails.iter().map(|mail| &mail.message), options, |progress| {
            let mail = &mails[progress.index];
            let (state, note) = outcome::of(progress.outcome);
            if let Err(error) = resume.note(mail.key, &mail.id, state, &note) {
                // The rest of the block is on its way. Its outcomes are lost, which leaves them unknown.
                written = Err(error);
            }
            if let Err(error) = progress.outcome {
                if outcome::ends_the_run(error) {
                    failed = Some(error.to_string());
                } else {
                    bar.suspend(|| eprintln!("{}  {}: {}", state.as_str(), mail.key, outcome::in_short(error)));
                }
            }
            bar.inc(1);
        });
        written?;
        Ok(failed)
    }
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

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32.green/black.bright} {pos}/{len}  {rate}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
            // It has nowhere to tell a failure.
            let _ = write!(text, "{:.0} a second", state.per_sec());
        });
    ProgressBar::new(0).with_style(style)
}
