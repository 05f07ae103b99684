//! The resume file: who has begun, and what came of it. It only grows, a line at a time: state, address, Message-ID, note, with tabs
//! between them. The last line of an address counts.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::Error;
use crate::outcome::State;
use crate::recipients;

/// What the note says of those whom a run has left behind.
const LEFT_BEHIND: &str = "the run ended before it could write what came of it";

/// The file, locked for as long as this lives.
pub struct ResumeFile {
    file: File,
    states: HashMap<String, (State, String)>,
    /// A line may be there in part, and nothing must follow it.
    is_torn: bool,
}

impl ResumeFile {
    /// Reads the file, or makes one. Those who have begun and have no outcome are unknown from now on.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        // Two runs at a time would send everything twice. The lock ends with its process, however that ends: so who has begun has
        // been left behind, and nobody is still at it.
        lock(&file).map_err(|error| format!("{} is in use: {error}", path.display()))?;
        // A file whose name is not on the disk yet could be gone after a power failure, and with it all that has begun.
        sync_name(path)?;

        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = std::str::from_utf8(&bytes[..whole]).map_err(|error| damaged(path, &error))?;
        let states = parse(text).map_err(|error| damaged(path, &error))?;
        if whole < bytes.len() {
            // A last line without an end says nothing: of `begun`, nothing has left; an outcome leaves its mail unknown.
            file.set_len(whole as u64)?;
        }
        let mut resume = Self { file, states, is_torn: false };
        resume.write_off()?;
        Ok(resume)
    }

    fn write_off(&mut self) -> io::Result<()> {
        let begun = self.states.iter().filter(|(_, (state, _))| *state == State::Begun);
        let left: Vec<_> = begun.map(|(key, (_, id))| (key.clone(), id.clone())).collect();
        for (key, id) in left {
            self.note(&key, &id, State::Unknown, LEFT_BEHIND)?;
        }
        Ok(())
    }

    /// Whether this one may be sent the mail.
    pub fn may_be_sent(&self, key: &str) -> bool {
        self.states.get(key).is_none_or(|(state, _)| state.may_be_sent())
    }

    /// The state of everybody who has one.
    pub fn states(&self) -> impl Iterator<Item = (&str, State, &str)> {
        self.states.iter().map(|(key, (state, id))| (key.as_str(), *state, id.as_str()))
    }

    /// Writes down that these mails begin. When this returns it is on the disk, and their first byte may leave.
    pub fn begin<'a>(&mut self, mails: impl IntoIterator<Item = (&'a str, &'a str)>) -> io::Result<()> {
        let mut lines = String::new();
        for (key, id) in mails {
            lines += &line(State::Begun, key, id, "");
            self.states.insert(key.to_owned(), (State::Begun, id.to_owned()));
        }
        self.append(&lines)?;
        // What was written before, outcomes included, is on the disk with it.
        self.file.sync_data()
    }

    /// Writes down what came of a mail. It is safe from the end of this program at once, and from that of the machine soon.
    pub fn note(&mut self, key: &str, id: &str, state: State, note: &str) -> io::Result<()> {
        self.append(&line(state, key, id, note))?;
        self.states.insert(key.to_owned(), (state, id.to_owned()));
        Ok(())
    }

    /// Before the program says that it is done.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn append(&mut self, lines: &str) -> io::Result<()> {
        if self.is_torn {
            return Err(io::Error::other("an earlier line could not be written"));
        }
        self.is_torn = true;
        self.file.write_all(lines.as_bytes())?;
        self.is_torn = false;
        Ok(())
    }
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{} is not what this program wrote, and it would be a guess whom to send to: {error}", path.display())
}

fn line(state: State, key: &str, id: &str, note: &str) -> String {
    let note: String = note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{}\t{key}\t{id}\t{note}\n", state.as_str())
}

/// The last state of each address, and the Message-ID it had.
fn parse(text: &str) -> Result<HashMap<String, (State, String)>, String> {
    let mut states = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut parts = line.split('\t');
        let state = parts.next().and_then(|word| State::ALL.into_iter().find(|state| state.as_str() == word.trim()));
        let key = parts.next().map(recipients::key).filter(|key| key.contains('@'));
        let (Some(state), Some(key)) = (state, key) else {
            return Err(format!("line {number} is not a state, a tab and an address"));
        };
        let id = parts.next().unwrap_or_default();
        states.insert(key, (state, id.to_owned()));
    }
    Ok(states)
}

#[expect(
    clippy::incompatible_msrv,
    reason = "examples are built with a newer compiler than the crate, as their dependencies ask for"
)]
fn lock(file: &File) -> Result<(), std::fs::TryLockError> {
    file.try_lock()
}

fn sync_name(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
