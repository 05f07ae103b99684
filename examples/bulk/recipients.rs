//! The list: a CSV file with the columns `name` and `email`, in whatever order and among whatever others.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use lettre::Address;
use lettre::message::Mailbox;

use crate::Error;

/// Somebody on the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub mailbox: Mailbox,
    /// Who it is, in the resume file.
    pub key: String,
}

/// A line that nobody is sent a mail for.
#[derive(Debug, PartialEq, Eq)]
pub struct Skipped {
    pub line: u64,
    pub why: Why,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Why {
    Invalid(String),
    Duplicate(String),
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Invalid(text) => write!(f, "line {}: {text:?} is no mail address", self.line),
            Why::Duplicate(key) => write!(f, "line {}: {key} has been on the list before", self.line),
        }
    }
}

/// The key of an address. Who differs in case alone is the same for nearly every server, and gets one mail.
pub fn key(address: &str) -> String {
    address.trim().to_lowercase()
}

pub fn read(list: impl Read) -> Result<(Vec<Recipient>, Vec<Skipped>), Error> {
    let mut list = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(list);
    let headers = list.headers()?.clone();
    let column = |name: &str| {
        // Spreadsheets begin their files with a byte order mark.
        let found = headers.iter().position(|header| header.trim_start_matches('\u{feff}').eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("the list has no column \"{name}\""))
    };
    let (names, addresses) = (column("name")?, column("email")?);

    let (mut recipients, mut skipped, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for record in list.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let (name, text) = (&record[names], &record[addresses]);
        // A control character would break the lines of the resume file; within quotes it could be part of an address.
        let address = text.parse::<Address>().ok().filter(|_| !text.contains(char::is_control));
        let Some(address) = address else {
            skipped.push(Skipped { line, why: Why::Invalid(text.to_owned()) });
            continue;
        };
        let key = key(text);
        if !seen.insert(key.clone()) {
            skipped.push(Skipped { line, why: Why::Duplicate(key) });
            continue;
        }
        let name = (!name.is_empty()).then(|| name.to_owned());
        recipients.push(Recipient { mailbox: Mailbox::new(name, address), key });
    }
    Ok((recipients, skipped))
}
