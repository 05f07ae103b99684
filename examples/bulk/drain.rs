//! Ctrl-C and SIGTERM: once, to finish what is under way; twice, to cut it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use smtp_pool::{CancelToken, SmtpSender};

use crate::Error;

/// How long a drain waits for mails that are under way: longer than a server may think about one.
const GRACE: Duration = Duration::from_secs(330);

/// Whether somebody has asked this program to end.
pub struct Drain(Arc<AtomicUsize>);

impl Drain {
    /// Mails of `sender` that have not begun when the first signal comes fail with `Shutdown`; those under way go on until they are done,
    /// or until the second signal has cancelled `token`.
    pub fn on_signal(sender: &SmtpSender, token: &CancelToken, bar: &ProgressBar) -> Result<Self, Error> {
        let asked = Arc::new(AtomicUsize::new(0));
        let (seen, sender, token, bar) = (Arc::clone(&asked), sender.clone(), token.clone(), bar.clone());
        ctrlc::set_handler(move || {
            if seen.fetch_add(1, Ordering::SeqCst) == 0 {
                bar.suspend(|| eprintln!("Finishing what is under way. Once more cuts it."));
                let sender = sender.clone();
                thread::spawn(move || sender.shutdown(GRACE));
            } else {
                token.cancel();
            }
        })?;
        Ok(Self(asked))
    }

    pub fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}
