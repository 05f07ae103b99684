//! Many messages over the pool's connections, a few at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lettre::Message;
use lettre::address::Envelope;

use crate::clock::{self, Deadline};
use crate::error::{FailureKind, SendError};
use crate::options::{BatchOptions, Dsn, SendOptions};
use crate::report::{Progress, Receipt, Tally};
use crate::stage::SendStage;
use crate::sync::{Mutex, in_parallel};
use crate::trace::Recorder;

use super::acquisition::Acquisition;
use super::news::tell_end;
use super::{Inner, SmtpSender, retry};

/// One message of a batch: made from a `&Message`, or from an envelope and the formatted message.
///
/// ```
/// use lettre::address::Envelope;
/// use smtp_pool::{BatchMessage, Dsn};
///
/// let envelope = Envelope::new(None, vec!["b@example.com".parse()?])?;
/// let raw = BatchMessage::from((&envelope, &b"Subject: Hello\r\n\r\nHello."[..]));
/// let dsn = Dsn::new().envelope_id("order-4711")?;
/// let with_a_name_of_its_own = raw.dsn(&dsn);
/// # let _ = with_a_name_of_its_own;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct BatchMessage<'m> {
    form: Form<'m>,
    dsn: Option<&'m Dsn>,
}

#[derive(Debug, Clone, Copy)]
enum Form<'m> {
    /// Formatted when its turn comes, so that of a large batch only what is being sent is in memory twice.
    Message(&'m Message),
    Raw(&'m Envelope, &'m [u8]),
}

impl<'m> BatchMessage<'m> {
    /// Asks for these notifications instead of those of the whole batch, see [`SendOptions::dsn`].
    #[must_use]
    pub const fn dsn(mut self, dsn: &'m Dsn) -> Self {
        self.dsn = Some(dsn);
        self
    }
}

impl<'m> From<&'m Message> for BatchMessage<'m> {
    fn from(message: &'m Message) -> Self {
        Self { form: Form::Message(message), dsn: None }
    }
}

impl<'m> From<(&'m Envelope, &'m [u8])> for BatchMessage<'m> {
    fn from((envelope, content): (&'m Envelope, &'m [u8])) -> Self {
        Self { form: Form::Raw(envelope, content), dsn: None }
    }
}

impl SmtpSender {
    /// Sends many messages over the pool's connections, a few at a time, and returns what became of each, in the order of `messages`.
    ///
    /// Each is sent as by [`send_with`](Self::send_with): what fails for one stops none of the others. Messages begin in order, and other
    /// callers have their turn between them. An outage is waited for, for a while: see [`BatchOptions::outage_patience`]. After
    /// [`shutdown`](Self::shutdown) the messages that have not begun fail with [`Shutdown`](FailureKind::Shutdown).
    ///
    /// `messages` is read to its end before the first one is sent. What a batch holds is a reference to each message and the outcome of
    /// each; a [`Message`] is formatted when its turn comes. An endless outbox is sent as batches of some thousand.
    ///
    /// The calling thread sends too; the others are called `smtp-pool-batch-1` and so on, and end with the call. Where the system has
    /// no more threads there are fewer.
    ///
    /// ```
    /// use smtp_pool::{BatchOptions, FailureKind, Host, SmtpSender};
    /// # use smtp_pool::testing::TestServer;
    /// # let server = TestServer::start();
    /// # let sender = SmtpSender::builder().host(Host::plain("127.0.0.1").port(server.port())).build()?;
    /// # let message = |to: &str| lettre::Message::builder()
    /// #     .from("a@example.com".parse().unwrap()).to(to.parse().unwrap()).body(String::from("Hello.")).unwrap();
    /// # let messages = [message("b@example.com"), message("c@example.com")];
    ///
    /// let outcomes = sender.send_all(&messages, &BatchOptions::new());
    /// for (message, outcome) in messages.iter().zip(&outcomes) {
    ///     match outcome {
    ///         Ok(receipt) => println!("sent: {}", receipt.response()),
    ///         Err(e) if e.is_retry_safe() => println!("another time: {e}"),
    ///         Err(e) if e.kind() == FailureKind::UnknownAfterData => println!("in doubt: {e}"),
    ///         Err(e) if e.kind() == FailureKind::Shutdown => println!("another process may: {e}"),
    ///         Err(e) => println!("never: {e}"),
    ///     }
    ///     # let _ = message;
    /// }
    /// # assert_eq!((outcomes.len(), server.messages().len()), (2, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "each message has an outcome of its own"]
    pub fn send_all<'m, M>(
        &self,
        messages: impl IntoIterator<Item = M>,
        options: &BatchOptions,
    ) -> Vec<Result<Receipt, SendError>>
    where
        M: Into<BatchMessage<'m>>,
    {
        self.send_all_with(messages, options, |_| {})
    }

    /// As [`send_all`](Self::send_all), and tells `progress` of each message as soon as its outcome is known.
    ///
    /// It is called from whichever thread has sent the message, never from two at a time, and sending waits for it: it must be quick. No
    /// connection is held meanwhile, so it may send by itself, cancel the batch, or shut the sender down. If it panics it is not called
    /// again; the sending goes on, and every outcome is returned.
    ///
    /// ```
    /// # use smtp_pool::{BatchOptions, Host, SmtpSender};
    /// # use smtp_pool::testing::TestServer;
    /// # let server = TestServer::start();
    /// # let sender = SmtpSender::builder().host(Host::plain("127.0.0.1").port(server.port())).build()?;
    /// # let envelope = lettre::address::Envelope::new(None, vec!["b@example.com".parse()?])?;
    /// let outbox = vec![(envelope, b"Subject: Hello\r\n\r\nHello.".to_vec())];
    /// let messages = outbox.iter().map(|(envelope, content)| (envelope, &content[..]));
    ///
    /// sender.send_all_with(messages, &BatchOptions::new(), |progress| {
    ///     println!("{} of {}, {} failed", progress.done(), progress.total, progress.failed);
    /// });
    /// # assert_eq!(server.messages().len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_all_with<'m, M>(
        &self,
        messages: impl IntoIterator<Item = M>,
        options: &BatchOptions,
        progress: impl FnMut(Progress<'_>) + Send,
    ) -> Vec<Result<Receipt, SendError>>
    where
        M: Into<BatchMessage<'m>>,
    {
        let messages: Vec<BatchMessage<'m>> = messages.into_iter().map(Into::into).collect();
        let at_a_time = options.parallelism.unwrap_or(self.inner.options.max_size).min(messages.len());
        let batch = Batch {
            inner: &self.inner,
            messages: &messages,
            options,
            next: AtomicUsize::new(0),
            outage: Mutex::new(Outage::default()),
        };
        let board = Mutex::new(Board { tally: Tally::of(messages.len()), progress: Some(progress) });
        in_parallel(at_a_time, "smtp-pool-batch", None, || {
            while let Some((index, outcome)) = batch.send_next() {
                // Proof: this lock is there to call `progress` from one thread at a time, and guards nothing else. Whoever has it has
                // neither a connection nor another lock, and nothing that a callback can reach asks for it.
                board.lock().note(index, outcome);
            }
        });
        board.into_inner().tally.into_outcomes()
    }
}

/// What the threads of a batch write down.
struct Board<F> {
    tally: Tally,
    /// `None` once it has panicked.
    progress: Option<F>,
}

impl<F: FnMut(Progress<'_>)> Board<F> {
    fn note(&mut self, index: usize, outcome: Result<Receipt, SendError>) {
        // The outcome is written down before anybody else's code runs.
        let told = self.tally.note(index, outcome);
        let Some(progress) = &mut self.progress else { return };
        if catch_unwind(AssertUnwindSafe(|| progress(told))).is_err() {
            log::error!(target: "smtp_pool::pool", event = "progress_panicked"; "the progress callback of a batch panicked, and is not called again");
            self.progress = None;
        }
    }
}

/// The messages, and who is next.
struct Batch<'a> {
    inner: &'a Inner,
    messages: &'a [BatchMessage<'a>],
    options: &'a BatchOptions,
    next: AtomicUsize,
    outage: Mutex<Outage>,
}

/// Since when no host could be connected to, as far as this batch has seen.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
}

impl Batch<'_> {
    /// Sends the next message. `None`: there is none.
    fn send_next(&self) -> Option<(usize, Result<Receipt, SendError>)> {
        // Each number is had once; the messages themselves were there before the threads were.
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        self.messages.get(index).map(|message| (index, self.send(*message)))
    }

    /// Observers are told of a message once, when it is over; not of each try that the batch makes up its mind to repeat.
    fn send(&self, message: BatchMessage<'_>) -> Result<Receipt, SendError> {
        let mut began = clock::now();
        let outcome = self.carry(message, &mut began);
        tell_end(&self.inner.observers, began, &outcome);
        outcome
    }

    /// `began` is when the last try did.
    fn carry(&self, message: BatchMessage<'_>, began: &mut Instant) -> Result<Receipt, SendError> {
        let send = &self.options.send;
        self.go_on()?;
        let formatted;
        let (envelope, content) = match message.form {
            Form::Message(message) => {
                formatted = message.formatted();
                (message.envelope(), &formatted[..])
            }
            Form::Raw(envelope, content) => (envelope, content),
        };
        loop {
            let own = self.own_options(message.dsn, clock::now());
            let options = own.as_ref().unwrap_or(send);
            // The batch does the waiting, once for all of its messages: each would wait for a try of its own.
            let acquisition = Acquisition { waits_out_cooldowns: false, ..Acquisition::new(self.inner, options) };
            *began = acquisition.started;
            let outcome = retry::run(acquisition, envelope, content, options);
            // Told that no host could be connected to, nobody has got anything: sending it again is as good as not having begun.
            match self.worth_waiting_for(&outcome, clock::now()) {
                Some(turn) => self.inner.pause.until(turn, send.cancel.as_ref()),
                None => return outcome,
            }
            // A pool without a host says so before it asks whether the caller still wants one.
            self.go_on()?;
        }
    }

    /// Whether the batch has not been cancelled.
    fn go_on(&self) -> Result<(), SendError> {
        let Self { inner, options: BatchOptions { send, .. }, .. } = self;
        match &send.cancel {
            Some(token) if token.is_cancelled() => {
                let acquisition = Acquisition::new(inner, send);
                let error = acquisition.cancelled(inner.pool.counts());
                Err(retry::end(Recorder::new(acquisition.started), inner, error))
            }
            _ => Ok(()),
        }
    }

    /// The options of a message that begins now, where they are not those of all.
    fn own_options(&self, dsn: Option<&Dsn>, now: Instant) -> Option<SendOptions> {
        let BatchOptions { send, message_timeout, .. } = self.options;
        if dsn.is_none() && message_timeout.is_none() {
            return None;
        }
        let mut own = send.clone();
        if let Some(dsn) = dsn {
            own.dsn = Some(dsn.clone());
        }
        if let Some(timeout) = message_timeout {
            let by = Deadline::at(now, *timeout);
            own.deadline = Some(send.deadline.map_or(by, |batch| by.earlier(Deadline::on(batch))).instant());
        }
        Some(own)
    }

    /// When to try again, if the message failed for an outage that may be over by then.
    fn worth_waiting_for(&self, outcome: &Result<Receipt, SendError>, now: Instant) -> Option<Deadline> {
        // Proof: one moment is written down or forgotten. The first who sees an outage sets it, and whoever comes later finds it set.
        let mut outage = self.outage.lock();
        let Err(error) = outcome else {
            outage.since = None;
            return None;
        };
        let is_waiting_in_vain = error.kind() == FailureKind::PoolExhausted && outage.since.is_some();
        if error.kind() != FailureKind::HostUnavailable && !is_waiting_in_vain {
            if error.stage() >= SendStage::Authenticated {
                outage.since = None;
            }
            return None;
        }
        let since = *outage.since.get_or_insert(now);
        drop(outage);
        // Wrong credentials are no outage: each further try of them brings an account closer to being locked.
        if self.inner.pool.is_refused_for_long() {
            return None;
        }
        let pause = error.retry_after().unwrap_or(self.inner.options.retry_base_delay);
        let turn = Deadline::at(now, pause);
        let patience = Deadline::at(since, self.options.outage_patience);
        let ends = self.options.send.deadline.map_or(patience, |batch| patience.earlier(Deadline::on(batch)));
        (turn < ends).then_some(turn)
    }
}
