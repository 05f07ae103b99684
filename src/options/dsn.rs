//! What a sender may ask for in delivery status notifications.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::BitOr;

use lettre::Address;

use super::OptionsError;

/// The longest `ENVID`, [RFC 3461 §4.4](https://www.rfc-editor.org/rfc/rfc3461#section-4.4); counted as it travels, in xtext.
const LONGEST_ENVELOPE_ID: usize = 100;

/// The longest `ORCPT`, [RFC 3461 §4.2](https://www.rfc-editor.org/rfc/rfc3461#section-4.2); with its address type, in xtext.
const LONGEST_ORIGINAL_RECIPIENT: usize = 500;

/// What is asked of servers about delivery status notifications
/// ([RFC 3461](https://www.rfc-editor.org/rfc/rfc3461)): when to send one, about which message, and how much of it to return.
///
/// The server that takes the message hands the request on; it says nothing about whether anybody keeps to it. Values are checked
/// where they are set, so nothing that cannot be said ever reaches a connection.
///
/// A server that does not offer DSN gets no message that asks for it: the send fails with
/// [`PermanentFailure`](crate::FailureKind::PermanentFailure) before `MAIL`, because a program that waits for a notification would
/// wait in vain. Where mail matters more than the notification, say [`when_offered`](Self::when_offered).
///
/// ```
/// use smtp_pool::{Dsn, DsnReturn, Notify, RecipientDsn, SendOptions};
///
/// # fn options() -> Result<SendOptions, Box<dyn std::error::Error>> {
/// let dsn = Dsn::new()
///     .content(DsnReturn::Headers)
///     .envelope_id("order 4711")?
///     .notify(Notify::FAILURE | Notify::DELAY)
///     .recipient("list@example.com".parse()?, RecipientDsn::new().notify(Notify::NEVER));
/// let options = SendOptions::new().dsn(dsn);
/// # Ok(options)
/// # }
/// # options().unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dsn {
    pub(crate) content: Option<DsnReturn>,
    /// In xtext.
    pub(crate) envelope_id: Option<String>,
    pub(crate) notify: Option<Notify>,
    pub(crate) recipients: BTreeMap<Address, RecipientDsn>,
    pub(crate) is_optional: bool,
}

impl Dsn {
    /// Asks for nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How much of the message a notification of failure returns (`RET`). Default: the servers decide.
    #[must_use]
    pub fn content(mut self, content: DsnReturn) -> Self {
        self.content = Some(content);
        self
    }

    /// A name for this sending of the message, which notifications repeat (`ENVID`), so that a program knows what they are about.
    /// Default: none.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] if it is empty, holds anything but printable ASCII and blanks, or is longer than 100 characters as it travels:
    /// blank, `+` and `=` take three each.
    pub fn envelope_id(mut self, id: impl AsRef<str>) -> Result<Self, OptionsError> {
        let id = id.as_ref();
        let wrong = |rule: String| OptionsError::new("envelope_id", format!("{id:?}"), rule);
        let encoded = xtext(id).ok_or_else(|| wrong(PRINTABLE.to_owned()))?;
        if encoded.len() > LONGEST_ENVELOPE_ID {
            return Err(wrong(format!("must not be longer than {LONGEST_ENVELOPE_ID} characters in xtext (RFC 3461)")));
        }
        self.envelope_id = Some(encoded);
        Ok(self)
    }

    /// When to send a notification, for every recipient without a setting of its own (`NOTIFY`). Default: not said, which means
    /// failure, and delay if the server likes.
    #[must_use]
    pub fn notify(mut self, notify: Notify) -> Self {
        self.notify = Some(notify);
        self
    }

    /// What is different for one recipient of the envelope. Saying it again for the same address replaces it.
    ///
    /// A send whose envelope does not have this recipient is refused before anything leaves.
    #[must_use]
    pub fn recipient(mut self, address: Address, dsn: RecipientDsn) -> Self {
        self.recipients.insert(address, dsn);
        self
    }

    /// Sends the message without any of this where DSN is not offered. Default: such a send is refused.
    ///
    /// For mail that matters more than its notifications, and for hosts of which some offer DSN and some do not. Without DSN servers
    /// notify of failure, [`Notify::NEVER`] or not.
    #[must_use]
    pub fn when_offered(mut self) -> Self {
        self.is_optional = true;
        self
    }

    /// What to say at `RCPT`, for this recipient.
    pub(crate) fn of(&self, address: &Address) -> (Option<Notify>, Option<&str>) {
        let own = self.recipients.get(address);
        let notify = own.and_then(|own| own.notify).or(self.notify);
        (notify, own.and_then(|own| own.original.as_deref()))
    }
}

/// What is asked for one recipient, see [`Dsn::recipient`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecipientDsn {
    notify: Option<Notify>,
    /// With its type, in xtext.
    original: Option<String>,
}

impl RecipientDsn {
    /// Nothing of its own yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// When to send a notification about this recipient. Default: that of [`Dsn::notify`].
    #[must_use]
    pub fn notify(mut self, notify: Notify) -> Self {
        self.notify = Some(notify);
        self
    }

    /// The address that the message was for at first, where that is another one than the recipient's: of an alias or a list
    /// (`ORCPT`, type `rfc822`). Default: none.
    ///
    /// # Errors
    ///
    /// [`OptionsError`], without the address, if it is empty, holds anything but printable ASCII and blanks, or is longer than 500
    /// characters as it travels. Addresses beyond ASCII have a type of their own
    /// ([RFC 6533](https://www.rfc-editor.org/rfc/rfc6533)), which is not spoken here.
    pub fn original_recipient(mut self, address: impl AsRef<str>) -> Result<Self, OptionsError> {
        let address = address.as_ref();
        // Errors end up in logs, and addresses must not.
        let wrong = |rule: String| {
            OptionsError::new("original_recipient", format!("an address of {} octets", address.len()), rule)
        };
        let encoded = xtext(address).ok_or_else(|| wrong(PRINTABLE.to_owned()))?;
        let typed = format!("rfc822;{encoded}");
        if typed.len() > LONGEST_ORIGINAL_RECIPIENT {
            let rule = format!("must not be longer than {LONGEST_ORIGINAL_RECIPIENT} characters in xtext (RFC 3461)");
            return Err(wrong(rule));
        }
        self.original = Some(typed);
        Ok(self)
    }
}

/// How much of a message a notification of failure returns, [RFC 3461 §4.3](https://www.rfc-editor.org/rfc/rfc3461#section-4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DsnReturn {
    /// The whole message.
    Full,
    /// Its header alone.
    Headers,
}

impl DsnReturn {
    pub(crate) const fn keyword(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

/// When to notify the sender, [RFC 3461 §4.1](https://www.rfc-editor.org/rfc/rfc3461#section-4.1): a set of occasions, put together
/// with `|`. The empty set is [`NEVER`](Self::NEVER).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Notify(u8);

impl Notify {
    /// On no occasion.
    pub const NEVER: Self = Self(0);
    /// When the message has been delivered.
    pub const SUCCESS: Self = Self(1);
    /// When it could not be delivered.
    pub const FAILURE: Self = Self(2);
    /// When delivery takes unusually long.
    pub const DELAY: Self = Self(4);

    /// Whether it holds every occasion of `other`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The words for its occasions.
    pub(crate) fn keywords(self) -> impl Iterator<Item = &'static str> {
        let words = [(Self::SUCCESS, "SUCCESS"), (Self::FAILURE, "FAILURE"), (Self::DELAY, "DELAY")];
        let never = (self == Self::NEVER).then_some("NEVER");
        never.into_iter().chain(words.into_iter().filter(move |(one, _)| self.contains(*one)).map(|(_, word)| word))
    }
}

impl BitOr for Notify {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

const PRINTABLE: &str = "must be printable ASCII, at least one character (RFC 3461)";

/// `text` in xtext ([RFC 3461 §4](https://www.rfc-editor.org/rfc/rfc3461#section-4)); `None` if a notification could not repeat it.
fn xtext(text: &str) -> Option<String> {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' | b' ' => write!(encoded, "+{byte:02X}").ok()?,
            b'!'..=b'~' => encoded.push(char::from(byte)),
            _ => return None,
        }
    }
    (!encoded.is_empty()).then_some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_notification_could_not_repeat_is_refused_by_name() {
        for bad in ["", "a\r\nb", "a\nRCPT TO:<x@y>", "\t", "\0", "\u{7f}", "ü", &"x".repeat(101), &"+".repeat(34)] {
            let error = Dsn::new().envelope_id(bad).unwrap_err();
            assert_eq!(error.option(), "envelope_id", "{bad:?}");
            assert!(error.to_string().contains("RFC 3461") && !error.to_string().contains('\n'), "{error}");
        }
        for bad in ["", "a\r\nb@c", "ü@example.com", &"x".repeat(494), &"=".repeat(165)] {
            let error = RecipientDsn::new().original_recipient(bad).unwrap_err();
            assert_eq!(error.option(), "original_recipient", "{bad:?}");
            assert!(!error.to_string().contains('@'), "{error}");
        }
        for good in [&"x".repeat(100), &"+".repeat(33), "a b", "=?~!"] {
            Dsn::new().envelope_id(good).unwrap();
        }
        for good in [&"x".repeat(493), "a+b@example.com", "\"a b\"@example.com"] {
            RecipientDsn::new().original_recipient(good).unwrap();
        }
    }

    #[test]
    fn never_is_the_empty_set() {
        assert_eq!(Notify::NEVER | Notify::DELAY, Notify::DELAY);
        let words = |notify: Notify| notify.keywords().collect::<Vec<_>>();
        assert_eq!(words(Notify::NEVER), ["NEVER"]);
        assert_eq!(words(Notify::DELAY | Notify::SUCCESS), ["SUCCESS", "DELAY"]);
        assert_eq!(words(Notify::SUCCESS | Notify::FAILURE | Notify::DELAY), ["SUCCESS", "FAILURE", "DELAY"]);
        assert!((Notify::DELAY | Notify::FAILURE).contains(Notify::DELAY) && !Notify::DELAY.contains(Notify::FAILURE));
    }
}
