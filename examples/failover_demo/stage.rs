//! The two servers, the pool between them and the load, and the plot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use smtp_pool::testing::{Action, Script, Stage as At, TestServer};
use smtp_pool::{Host, SmtpSender};

use crate::Error;
use crate::diary::Diary;
use crate::time;

/// The plot begins again after so long.
const ACT: Duration = Duration::from_secs(12);
/// When in it the preferred server goes down, and when it is back.
const DOWN: Duration = Duration::from_secs(3);
const BACK: Duration = Duration::from_secs(7);

/// What a server takes to store a mail.
const THOUGHT: Duration = Duration::from_millis(8);

pub const NAMES: [&str; 2] = ["primary", "secondary"];

pub struct Stage {
    /// In the order of the pool's hosts.
    pub servers: [TestServer; 2],
    pub sender: SmtpSender,
    pub diary: Arc<Diary>,
    opened: Instant,
    is_down: AtomicBool,
}

impl Stage {
    pub fn set() -> Result<Self, Error> {
        let opened = time::now();
        let servers = [(); 2].map(|()| TestServer::builder().script(open()).record(false).keep_messages(false).start());
        let diary = Arc::new(Diary::new(opened, [servers[0].port(), servers[1].port()]));
        let sender = SmtpSender::builder()
            .hosts(
                (0..).zip(&servers).map(|(rank, server)| Host::plain("127.0.0.1").port(server.port()).priority(rank)),
            )
            .max_size(6)
            // Short, because nobody wants to watch the defaults, which are for servers that others own.
            .reconnect_cooldown(Duration::from_millis(800))
            .max_reconnect_cooldown(Duration::from_secs(2))
            .retry_base_delay(Duration::from_millis(100))
            .observer(Arc::clone(&diary))
            .build()?;
        Ok(Self { servers, sender, diary, opened, is_down: AtomicBool::new(false) })
    }

    /// How long the play has gone on.
    pub fn at(&self) -> Duration {
        time::now() - self.opened
    }

    /// Takes the preferred server down, or up, if it is time.
    pub fn follow_the_plot(&self, at: Duration) {
        let (is_down, _) = plot(at);
        if self.is_down.swap(is_down, Ordering::Relaxed) == is_down {
            return;
        }
        let primary = &self.servers[0];
        if is_down {
            // As a server that is told to stop: what it has begun it finishes, so that no mail's fate is in doubt.
            primary.set_script(closing());
            primary.stop_accepting();
            self.diary.note(0, "goes down: 421 to what comes, and listens no more".to_owned());
        } else {
            primary.set_script(open());
            primary.resume_accepting();
            self.diary.note(0, "is back, which the pool does not know yet".to_owned());
        }
    }
}

/// Whether the preferred server is down by then, and how long that lasts.
pub fn plot(at: Duration) -> (bool, Duration) {
    let at = Duration::from_millis(u64::try_from(at.as_millis() % ACT.as_millis()).unwrap_or_default());
    if at < DOWN {
        (false, DOWN - at)
    } else if at < BACK {
        (true, BACK - at)
    } else {
        (false, ACT + DOWN - at)
    }
}

fn open() -> Script {
    Script::new().on(At::EndOfData, [Action::DelayFor(THOUGHT), Action::Default])
}

/// RFC 5321 §3.8: a server that has to shut down says so in answer to a command.
fn closing() -> Script {
    let bye = || [Action::reply("421 4.3.2 shutting down\r\n"), Action::Fin];
    open().on(At::Mail, bye()).on(At::Rset, bye()).on(At::Noop, bye())
}
