//! What a trace tells of the dialogue about one message.

use std::time::Instant;

use crate::endpoint::HostId;
use crate::event::{Event, Step};
use crate::recipient::{RecipientOutcome, RecipientStatus};
use crate::smtp::{Accepted, Failure};
use crate::trace::{Recorder, TraceCause, TraceEvent};

/// Over which host's connection, and from when to when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialogue {
    pub(crate) host: HostId,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

impl Dialogue {
    /// It ended with the message accepted.
    pub(crate) fn succeeded(self, accepted: &Accepted, trace: &mut Recorder) {
        self.tell_refusals(&accepted.recipients, trace);
        let Accepted { reply, .. } = accepted;
        self.tell(trace, TraceEvent::Accepted { code: reply.code(), enhanced: reply.enhanced_code() });
    }

    /// It ended with `failure`, after the server had said so much about the recipients.
    pub(crate) fn failed(self, failure: &Failure, recipients: &[RecipientOutcome], trace: &mut Recorder) {
        let has_refused = self.tell_refusals(recipients, trace);
        // The refusal that decided is one of those; but not the word of a server that closes, which answers nothing.
        if has_refused && matches!(failure.event, Event::Reply(Step::Rcpt, code) if !matches!(code, 221 | 421)) {
            return;
        }
        let is_about_recipient = failure.event.step() == Step::Rcpt && failure.event != Event::TooManyRecipients;
        let recipient = is_about_recipient.then(|| trace.recipient(recipients.len()));
        let cause = TraceCause::of(failure.event, failure.reply.as_ref(), recipient);
        self.tell(trace, TraceEvent::SendFailed { cause });
    }

    fn tell_refusals(self, recipients: &[RecipientOutcome], trace: &mut Recorder) -> bool {
        let mut has_refused = false;
        for (index, RecipientOutcome { status, reply, .. }) in recipients.iter().enumerate() {
            if let Some(reply) = reply.as_ref().filter(|_| *status != RecipientStatus::Accepted) {
                has_refused = true;
                let number = trace.recipient(index);
                let (code, enhanced) = (reply.code(), reply.enhanced_code());
                trace.step(self.ended, None, Some(self.host), TraceEvent::RecipientRefused { number, code, enhanced });
            }
        }
        has_refused
    }

    fn tell(self, trace: &mut Recorder, event: TraceEvent) {
        let took = self.ended.saturating_duration_since(self.began);
        trace.step(self.ended, Some(took), Some(self.host), event);
    }
}
