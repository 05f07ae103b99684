//! The embedded relay, which does what a button on the page says, so that each outcome can be seen.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use smtp_pool::testing::{Action, Script, Stage, TestServer};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Works,
    Slow,
    Refuses,
    Later,
    HangsUp,
    Down,
}

impl Mood {
    pub const ALL: [Self; 6] = [Self::Works, Self::Slow, Self::Refuses, Self::Later, Self::HangsUp, Self::Down];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Slow => "slow",
            Self::Refuses => "refuses",
            Self::Later => "later",
            Self::HangsUp => "hangs_up",
            Self::Down => "down",
        }
    }

    pub const fn text(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Slow => "takes 4 s",
            Self::Refuses => "refuses everybody",
            Self::Later => "says “later”",
            Self::HangsUp => "hangs up behind the last byte",
            Self::Down => "is down",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mood| mood.name() == name)
    }

    fn script(self) -> Script {
        match self {
            Self::Works | Self::Down => Script::new(),
            Self::Slow => {
                Script::new().on(Stage::EndOfData, [Action::DelayFor(Duration::from_secs(4)), Action::Default])
            }
            Self::Refuses => Script::new().on(Stage::Rcpt, [Action::reply("550 5.1.1 No such user here\r\n")]),
            Self::Later => Script::new().on(Stage::Rcpt, [Action::reply("450 4.2.0 Greylisted, come back later\r\n")]),
            Self::HangsUp => Script::new().on(Stage::EndOfData, [Action::Accept, Action::Reset]),
        }
    }
}

pub struct Relay {
    server: TestServer,
    mood: Mutex<Mood>,
}

impl Relay {
    pub fn start() -> Self {
        // It runs for as long as its program does, so it keeps neither mails nor transcripts.
        let server = TestServer::builder().record(false).keep_messages(false).start();
        Self { server, mood: Mutex::new(Mood::Works) }
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    pub fn mood(&self) -> Mood {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, mood: Mood) {
        let mut current = self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        self.server.set_script(mood.script());
        match (*current, mood) {
            (Mood::Down, Mood::Down) => {}
            (_, Mood::Down) => {
                self.server.stop_accepting();
                (1..=self.server.connections_accepted()).for_each(|number| self.server.connection(number).close());
            }
            (Mood::Down, _) => self.server.resume_accepting(),
            _ => {}
        }
        *current = mood;
    }
}
