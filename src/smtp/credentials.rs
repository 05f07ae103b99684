//! Where the credentials of a connection come from: fixed ones, or the program's supplier.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::clock::Deadline;
use crate::event::{Event, Fault, Step, Supply};
use crate::options::{Credentials, Login, OptionsError, Supplier};
use crate::stage::SendStage;
use crate::sync::Mutex;
use crate::undisclosed::Undisclosed;

use super::failure::Failure;
use super::single_flight::{NoAnswer, SingleFlight};

/// Calls of one supplier that may hang at a time. The one that is under way is shared, so a second begins only when the first is given
/// up for lost, or when credentials were rotated meanwhile.
const MAX_CALLS: usize = 4;

type Supplied = Result<Arc<Credentials>, (Supply, Option<Undisclosed>)>;

/// One host's credentials.
#[derive(Debug)]
pub(super) enum CredentialSource {
    /// It has none, and no AUTH is done.
    Nobody,
    /// The ones in force, which are replaced when they are rotated.
    Fixed(Mutex<Arc<Credentials>>),
    /// Asked for each connection.
    Supplied(SingleFlight<(), Supplied>),
}

impl CredentialSource {
    /// `patience` is how long a call of a supplier may take before it is given up for lost.
    pub(super) fn new(login: Option<Login>, patience: Duration) -> Self {
        match login {
            None => Self::Nobody,
            Some(Login::Fixed(credentials)) => Self::Fixed(Mutex::new(Arc::new(credentials))),
            Some(Login::Supplied(supplier)) => {
                Self::Supplied(SingleFlight::impatient("smtp-pool-credentials", MAX_CALLS, patience, move |&()| {
                    call(&supplier)
                }))
            }
        }
    }

    /// The credentials for one connection, by `deadline`; none if the host has none.
    pub(super) fn get(&self, deadline: Deadline, cancel: &[&CancelToken]) -> Result<Option<Arc<Credentials>>, Failure> {
        match self {
            Self::Nobody => Ok(None),
            // A pointer is copied, or exchanged by `rotate`: whoever asks gets one login, whole.
            Self::Fixed(credentials) => Ok(Some(Arc::clone(&credentials.lock()))),
            Self::Supplied(calls) => supplied(calls, deadline, cancel, SendStage::BeforeConnect).map(Some),
        }
    }

    /// Other credentials than those that the server has `refused`, if somebody can be asked for them. The same once more would be one
    /// more wrong password to the server, and lock the account.
    pub(super) fn others(
        &self,
        refused: &Credentials,
        deadline: Deadline,
        cancel: &[&CancelToken],
    ) -> Result<Option<Arc<Credentials>>, Failure> {
        let Self::Supplied(calls) = self else { return Ok(None) };
        let again = supplied(calls, deadline, cancel, SendStage::Connected)?;
        Ok((*again != *refused).then_some(again))
    }

    /// Whether these can be rotated in.
    pub(super) fn check_rotation(&self, credentials: &Credentials) -> Result<(), OptionsError> {
        let rule = match self {
            Self::Fixed(_) => return credentials.check(),
            Self::Supplied(_) => "must be fixed ones: a supplier's are renewed by `refresh_credentials`",
            Self::Nobody => "must have been set: a host without credentials does no AUTH",
        };
        Err(OptionsError::new("credentials", "not shown", rule))
    }

    /// From now on every connection gets these, which have been checked. The ones before are overwritten as soon as nobody logs in with
    /// them any more.
    pub(super) fn rotate(&self, credentials: Credentials) {
        if let Self::Fixed(current) = self {
            let credentials = Arc::new(credentials);
            // Overwritten after unlocking.
            let before = std::mem::replace(&mut *current.lock(), credentials);
            drop(before);
        }
    }

    /// What a supplier is just about to give is for those who wait for it already: who comes later has it called again.
    pub(super) fn forget(&self) {
        if let Self::Supplied(calls) = self {
            calls.forget();
        }
    }
}

/// The program's code, in a thread of its own.
fn call(supplier: &Supplier) -> Supplied {
    let credentials = supplier.call().map_err(|error| (Supply::Failed, Some(error.into())))?;
    credentials.check().map_err(|_| (Supply::Unusable, None))?;
    Ok(Arc::new(credentials))
}

fn supplied(
    calls: &SingleFlight<(), Supplied>,
    deadline: Deadline,
    cancel: &[&CancelToken],
    stage: SendStage,
) -> Result<Arc<Credentials>, Failure> {
    let none = |supply| Failure::new(Event::NoCredentials(supply), stage);
    let step = Step::Credentials;
    match calls.get(&(), deadline, cancel) {
        Ok(Ok(credentials)) => Ok(credentials),
        Ok(Err((supply, error))) => {
            let source = error.map(|error| -> Box<dyn StdError + Send + Sync> { Box::new(error) });
            Err(Failure { source, ..none(supply) })
        }
        Err(NoAnswer::Panicked) => Err(none(Supply::Panicked)),
        Err(NoAnswer::Busy) => Err(none(Supply::Hanging)),
        Err(NoAnswer::TimedOut) => Err(Failure::new(Event::Transport(step, Fault::TimedOut), stage)),
        Err(NoAnswer::Cancelled) => {
            let error = io::Error::new(io::ErrorKind::NotConnected, "cancelled");
            Err(Failure::transport(step, error, stage))
        }
        Err(NoAnswer::NoThread(error)) => {
            let event = Event::Transport(step, Fault::LocalShortage);
            Err(Failure { source: Some(Box::new(error)), ..Failure::new(event, stage) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    const LONG: Duration = Duration::from_secs(30);

    fn source(
        supply: impl Fn() -> Result<Credentials, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static,
    ) -> CredentialSource {
        CredentialSource::new(Some(Login::Supplied(Supplier::new(supply))), LONG)
    }

    fn event_of(source: &CredentialSource, deadline: Deadline) -> Event {
        source.get(deadline, &[]).unwrap_err().event
    }

    #[test]
    fn eight_connections_that_are_opened_at_once_take_one_call() {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let (go_on, goes_on) = bounded::<()>(1);
        let source = source(move || {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let _ = goes_on.recv();
            Ok(Credentials::new("user", format!("token {number}")))
        });
        let CredentialSource::Supplied(flights) = &source else { panic!("{source:?}") };
        thread::scope(|scope| {
            let get = || source.get(Deadline::after(LONG), &[]).unwrap().unwrap();
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(get)).collect();
            flights.until_waiting(8);
            go_on.send(()).unwrap();
            assert!(callers.into_iter().all(|caller| caller.join().unwrap().expose() == "token 0"));
        });
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        drop(go_on);
        let next = source.get(Deadline::after(LONG), &[]).unwrap().unwrap();
        assert_eq!(next.expose(), "token 1", "nothing is kept for the next connection");
    }

    #[test]
    fn a_supplier_that_fails_panics_or_gives_nonsense_is_told_as_such() {
        let failing = source(|| Err("token endpoint says: secret-canary".into()));
        let failure = failing.get(Deadline::after(LONG), &[]).unwrap_err();
        assert_eq!((&failure.event, failure.stage), (&Event::NoCredentials(Supply::Failed), SendStage::BeforeConnect));
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        let error = failure.source.unwrap();
        let told = error.downcast_ref::<Undisclosed>().unwrap().disclose().to_string();
        assert_eq!(told, "token endpoint says: secret-canary");
        let panicking = source(|| panic!("as planned"));
        assert_eq!(event_of(&panicking, Deadline::after(LONG)), Event::NoCredentials(Supply::Panicked));
        let odd = source(|| Ok(Credentials::new("user", "a\x01b")));
        assert_eq!(event_of(&odd, Deadline::after(LONG)), Event::NoCredentials(Supply::Unusable));
    }

    #[test]
    fn a_supplier_that_hangs_keeps_nobody_past_the_deadline_and_few_threads() {
        let (_hold, held) = bounded::<()>(0);
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let supplier = Supplier::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = held.recv();
            Err("released".into())
        });
        let source = CredentialSource::new(Some(Login::Supplied(supplier)), Duration::ZERO);
        for _ in 0..MAX_CALLS {
            let event = event_of(&source, Deadline::after(Duration::from_micros(10)));
            assert_eq!(event, Event::Transport(Step::Credentials, Fault::TimedOut));
        }
        for _ in 0..100 {
            assert_eq!(event_of(&source, Deadline::after(LONG)), Event::NoCredentials(Supply::Hanging));
        }
        assert!(begun.load(Ordering::SeqCst) <= MAX_CALLS);
    }

    #[test]
    fn others_are_other_ones() {
        let tokens = AtomicUsize::new(0);
        let source = source(move || {
            let number = tokens.fetch_add(1, Ordering::SeqCst) / 2;
            Ok(Credentials::new("user", format!("token {number}")))
        });
        let first = source.get(Deadline::after(LONG), &[]).unwrap().unwrap();
        assert!(source.others(&first, Deadline::after(LONG), &[]).unwrap().is_none(), "the same again is of no use");
        let other = source.others(&first, Deadline::after(LONG), &[]).unwrap().unwrap();
        assert_eq!(other.expose(), "token 1");
        let fixed = CredentialSource::new(Some(Login::Fixed(Credentials::new("user", "secret"))), LONG);
        let credentials = fixed.get(Deadline::after(LONG), &[]).unwrap().unwrap();
        assert!(fixed.others(&credentials, Deadline::after(LONG), &[]).unwrap().is_none());
    }

    #[test]
    fn only_fixed_credentials_are_replaced_and_only_by_usable_ones() {
        let fixed = CredentialSource::new(Some(Login::Fixed(Credentials::new("user", "old"))), LONG);
        fixed.check_rotation(&Credentials::new("user", "new")).unwrap();
        fixed.rotate(Credentials::new("user", "new"));
        assert_eq!(fixed.get(Deadline::after(LONG), &[]).unwrap().unwrap().expose(), "new");
        fixed.check_rotation(&Credentials::new("us\0er", "newer")).unwrap_err();
        for source in [CredentialSource::new(None, LONG), source(|| Err("".into()))] {
            let error = source.check_rotation(&Credentials::new("user", "secret")).unwrap_err();
            assert_eq!(error.option(), "credentials");
        }
    }
}
