//! Names into addresses, within a deadline.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::sync::Mutex;

use super::failure::no_descriptor;

/// Look-ups that may run at a time, or one for each host if there are more of them. The system's resolver cannot be interrupted, so a
/// name server that hangs keeps this many threads and no more.
const MAX_LOOKUPS: usize = 4;

type Addresses = Vec<IpAddr>;
type Answer = Result<Addresses, Arc<io::Error>>;
type Lookup = dyn Fn(&str) -> io::Result<Addresses> + Send + Sync;

/// Looks names up in threads of its own, because the system's resolver knows no deadline.
///
/// Callers that ask for the same name at the same time share one look-up. The last good answer of a name is kept, for the time when
/// the name server fails.
pub(crate) struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    lookup: Box<Lookup>,
    max_lookups: usize,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    /// Who waits for which name.
    asking: HashMap<String, Vec<Sender<Answer>>>,
    last_good: HashMap<String, Addresses>,
}

/// Why a name has no address.
#[derive(Debug)]
pub(super) enum ResolveError {
    /// The name server did not answer in time.
    TimedOut,
    /// Too many look-ups hang already.
    Busy,
    /// No thread could be started.
    NoThread(io::Error),
    /// The name server answered, or could not be asked.
    Failed(Arc<io::Error>),
}

impl Resolver {
    /// The system's resolver, for so many hosts.
    pub(crate) fn system(hosts: usize) -> Self {
        Self::new(hosts, |name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    fn new(hosts: usize, lookup: impl Fn(&str) -> io::Result<Addresses> + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                lookup: Box::new(lookup),
                max_lookups: hosts.max(MAX_LOOKUPS),
                names: Mutex::default(),
            }),
        }
    }

    /// The addresses of `name`, at least one.
    pub(super) fn resolve(
        &self,
        name: &str,
        port: u16,
        deadline: Deadline,
        cancel: &[&CancelToken],
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        // An answer from before must not come too late to be used.
        let known = self.shared.names.lock().last_good.contains_key(name);
        let wait_until = if known { deadline.instant() - deadline.remaining() / 2 } else { deadline.instant() };
        let answer = self.ask(name).and_then(|(answer_to, answers)| {
            let cut = || {
                let answer_to = answer_to.clone();
                move || drop(answer_to.try_send(Err(Arc::new(io::Error::other("cancelled")))))
            };
            let _registrations = cancel.iter().map(|token| token.on_cancel(cut())).collect::<Vec<_>>();
            let answer = answers.recv_deadline(wait_until).map_err(|_| ResolveError::TimedOut)?;
            answer.map_err(ResolveError::Failed)
        });
        let addresses = answer.or_else(|error| self.shared.names.lock().last_good.get(name).cloned().ok_or(error))?;
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// Joins the look-up of `name`, or begins it.
    fn ask(&self, name: &str) -> Result<(Sender<Answer>, Receiver<Answer>), ResolveError> {
        // Room for the answer and for a cancellation.
        let (answer_to, answer) = bounded(2);
        let handle = answer_to.clone();
        {
            // Whoever finds the name absent under the lock begins the look-up; the thread takes the whole list out under the same
            // lock, so each sender is in exactly one list that will be answered.
            let mut names = self.shared.names.lock();
            if let Some(waiting) = names.asking.get_mut(name) {
                waiting.push(answer_to);
                return Ok((handle, answer));
            }
            if names.asking.len() >= self.shared.max_lookups {
                return Err(ResolveError::Busy);
            }
            names.asking.insert(name.to_owned(), vec![answer_to]);
        }
        let shared = Arc::clone(&self.shared);
        let owned = name.to_owned();
        let started = thread::Builder::new().name("smtp-pool-resolve".to_owned()).spawn(move || shared.run(&owned));
        match started {
            Ok(_) => Ok((handle, answer)),
            Err(error) => {
                self.shared.names.lock().asking.remove(name);
                Err(ResolveError::NoThread(error))
            }
        }
    }
}

impl Shared {
    fn run(&self, name: &str) {
        let started = clock::now();
        let answer = match (self.lookup)(name) {
            Ok(addresses) if addresses.is_empty() => Err(Arc::new(io::Error::other("the name has no address"))),
            Ok(addresses) => Ok(addresses),
            // To the system's resolver, a name server that it has no descriptor for is one that does not answer.
            Err(error) => Err(Arc::new(no_descriptor().unwrap_or(error))),
        };
        log::trace!("looked {name} up in {:?}", clock::now() - started);
        let waiting = {
            let mut names = self.names.lock();
            if let Ok(addresses) = &answer {
                names.last_good.insert(name.to_owned(), addresses.clone());
            }
            names.asking.remove(name)
        };
        for answer_to in waiting.into_iter().flatten() {
            // A caller whose deadline passed has gone.
            let _ = answer_to.try_send(answer.clone());
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn an_address_needs_no_lookup() {
        let resolver = Resolver::new(1, |_| panic!("nothing to look up"));
        let addresses = resolver.resolve("::1", 25, Deadline::after(LONG), &[]).unwrap();
        assert_eq!(addresses, ["[::1]:25".parse().unwrap()]);
    }

    #[test]
    fn a_hanging_name_server_holds_nobody_past_the_deadline_and_piles_up_no_threads() {
        let (release, released) = bounded::<()>(0);
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&begun);
        let resolver = Resolver::new(1, move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            let _ = released.recv();
            Ok(vec![IpAddr::from([127, 0, 0, 1])])
        });
        for round in 0..1_000 {
            let name = format!("host{}.example", round % 10);
            let deadline = Deadline::after(Duration::from_micros(10));
            let error = resolver.resolve(&name, 25, deadline, &[]).unwrap_err();
            assert!(matches!(error, ResolveError::TimedOut | ResolveError::Busy), "{error:?}");
        }
        assert!(begun.load(Ordering::Relaxed) <= MAX_LOOKUPS);
        drop(release);
        assert_eq!(resolver.resolve("host0.example", 25, Deadline::after(LONG), &[]).unwrap().len(), 1);
    }

    #[test]
    fn a_cancelled_caller_does_not_wait_for_the_name_server() {
        let (_hold, held) = bounded::<()>(0);
        let resolver = Resolver::new(1, move |_| {
            let _ = held.recv();
            Ok(Vec::new())
        });
        let token = CancelToken::new();
        thread::scope(|scope| {
            let asking = scope.spawn(|| resolver.resolve("a.example", 25, Deadline::after(LONG), &[&token]));
            token.cancel();
            assert!(matches!(asking.join().unwrap(), Err(ResolveError::Failed(_))));
        });
        drop(_hold);
    }

    #[test]
    fn the_last_good_answer_outlives_the_name_server() {
        let calls = AtomicUsize::new(0);
        let resolver = Resolver::new(1, move |_| match calls.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
            _ => Err(io::Error::other("SERVFAIL")),
        });
        let first = resolver.resolve("a.example", 25, Deadline::after(LONG), &[]).unwrap();
        assert_eq!(resolver.resolve("a.example", 25, Deadline::after(LONG), &[]).unwrap(), first);
        assert!(matches!(resolver.resolve("b.example", 25, Deadline::after(LONG), &[]), Err(ResolveError::Failed(_))));
    }
}
