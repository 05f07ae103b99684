//! What a person has typed, and whether a mail can be made of it.

use std::hash::{DefaultHasher, Hash, Hasher};

use lettre::{Address, Message};

#[derive(Debug, Clone, Default, Hash)]
pub struct Form {
    pub to: String,
    pub subject: String,
    pub text: String,
}

/// What is wrong, by field.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    pub to: Option<&'static str>,
    pub subject: Option<&'static str>,
    pub text: Option<&'static str>,
}

const LONGEST_SUBJECT: usize = 200;

impl Form {
    /// A form and its ticket, from a body of `application/x-www-form-urlencoded`.
    pub fn from_body(body: &[u8]) -> (Self, Option<String>) {
        let (mut form, mut ticket) = (Self::default(), None);
        for (name, value) in url::form_urlencoded::parse(body) {
            match &*name {
                "to" => form.to = value.trim().to_owned(),
                "subject" => form.subject = value.trim().to_owned(),
                "text" => form.text = value.into_owned(),
                "ticket" => ticket = Some(value.into_owned()),
                _ => {}
            }
        }
        (form, ticket)
    }

    /// Whether two forms say the same.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Where to send it, or what a person has to mend first.
    pub fn check(&self) -> Result<Address, Mistakes> {
        let mut mistakes = Mistakes::default();
        // One address, and not a list or a name with one: what is typed here decides who gets the mail.
        let address = self.to.parse::<Address>();
        if self.to.is_empty() {
            mistakes.to = Some("Who shall get it?");
        } else if address.is_err() {
            mistakes.to = Some("This is no mail address.");
        }
        // A browser sends none in a one-line field. lettre would encode them; whoever sends them wants something else.
        if self.subject.chars().any(char::is_control) {
            mistakes.subject = Some("The subject is one line.");
        } else if self.subject.chars().count() > LONGEST_SUBJECT {
            mistakes.subject = Some("The subject has 200 characters at most.");
        }
        if self.text.trim().is_empty() {
            mistakes.text = Some("There is nothing to send yet.");
        }
        match address {
            Ok(address) if mistakes == Mistakes::default() => Ok(address),
            _ => Err(mistakes),
        }
    }

    /// The mail. Header fields are written by lettre, which encodes what does not belong into one.
    pub fn message(&self, from: &Address, to: Address, id: &str) -> Result<Message, lettre::error::Error> {
        Message::builder()
            .from(from.clone().into())
            .to(to.into())
            .message_id(Some(id.to_owned()))
            .subject(&*self.subject)
            .header(lettre::message::header::ContentType::TEXT_PLAIN)
            .body(self.text.clone())
    }
}
