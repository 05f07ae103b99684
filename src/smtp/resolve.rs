//! Names into addresses, within a deadline.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::sync::Mutex;

use super::failure::no_descriptor;
use super::single_flight::{NoAnswer, SingleFlight};

/// Look-ups that may run at a time, or one for each host if there are more of them. The system's resolver cannot be interrupted, so a
/// name server that hangs keeps this many threads and no more.
const MAX_LOOKUPS: usize = 4;

type Addresses = Vec<IpAddr>;

/// Looks names up in threads of its own, because the system's resolver knows no deadline.
///
/// Callers that ask for the same name at the same time share one look-up. The last good answer of a name is kept, for the time when
/// the name server fails.
pub(crate) struct Resolver {
    lookups: SingleFlight<String, Result<Addresses, Arc<io::Error>>>,
    last_good: Arc<Mutex<HashMap<String, Addresses>>>,
}

/// Why a name has no address.
#[derive(Debug)]
pub(super) enum ResolveError {
    /// The name server did not answer in time.
    TimedOut,
    /// Too many look-ups hang already.
    Busy,
    /// No thread could be started.
    NoThread(Arc<io::Error>),
    /// The name server answered, or could not be asked.
    Failed(Arc<io::Error>),
}

impl From<NoAnswer> for ResolveError {
    fn from(reason: NoAnswer) -> Self {
        match reason {
            NoAnswer::TimedOut => Self::TimedOut,
            NoAnswer::Busy => Self::Busy,
            NoAnswer::NoThread(error) => Self::NoThread(error),
            NoAnswer::Cancelled => Self::Failed(Arc::new(io::Error::other("cancelled"))),
            NoAnswer::Panicked => Self::Failed(Arc::new(io::Error::other("the look-up panicked"))),
        }
    }
}

impl Resolver {
    /// The system's resolver, for so many hosts.
    pub(crate) fn system(hosts: usize) -> Self {
        Self::new(hosts, |name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    fn new(hosts: usize, lookup: impl Fn(&str) -> io::Result<Addresses> + Send + Sync + 'static) -> Self {
        let last_good = Arc::<Mutex<HashMap<_, _>>>::default();
        let kept = Arc::clone(&last_good);
        let lookup = move |name: &String| look_up(name, &lookup, &kept);
        Self { lookups: SingleFlight::new("smtp-pool-resolve", hosts.max(MAX_LOOKUPS), lookup), last_good }
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
        // An answer from before must not come too late to be used. (Of `last_good` whole entries are put in and copied out, and none is
        // ever taken out: what is known here is known below.)
        let known = self.last_good.lock().contains_key(name);
        let wait_until = if known { deadline.instant() - deadline.remaining() / 2 } else { deadline.instant() };
        let answer = self.lookups.get(&name.to_owned(), Deadline::on(wait_until), cancel);
        let answer = answer.map_err(ResolveError::from).and_then(|answer| answer.map_err(ResolveError::Failed));
        let addresses = answer.or_else(|error| self.last_good.lock().get(name).cloned().ok_or(error))?;
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

fn look_up(
    name: &str,
    lookup: impl Fn(&str) -> io::Result<Addresses>,
    last_good: &Mutex<HashMap<String, Addresses>>,
) -> Result<Addresses, Arc<io::Error>> {
    let started = clock::now();
    let answer = match lookup(name) {
        Ok(addresses) if addresses.is_empty() => Err(Arc::new(io::Error::other("the name has no address"))),
        Ok(addresses) => Ok(addresses),
        // To the system's resolver, a name server that it has no descriptor for is one that does not answer.
        Err(error) => Err(Arc::new(no_descriptor().unwrap_or(error))),
    };
    log::trace!("looked {name} up in {:?}", clock::now() - started);
    if let Ok(addresses) = &answer {
        last_good.lock().insert(name.to_owned(), addresses.clone());
    }
    answer
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
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

    #[test]
    fn a_panic_in_a_look_up_is_told_and_the_name_is_looked_up_again() {
        let calls = AtomicUsize::new(0);
        let resolver = Resolver::new(1, move |_| match calls.fetch_add(1, Ordering::Relaxed) {
            0 => panic!("as planned"),
            _ => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
        });
        let deadline = Deadline::after(LONG);
        let told = resolver.resolve("a.example", 25, deadline, &[]);
        assert!(matches!(told, Err(ResolveError::Failed(_))), "{told:?}");
        assert!(!deadline.is_over());
        assert_eq!(resolver.resolve("a.example", 25, Deadline::after(LONG), &[]).unwrap().len(), 1);
    }
}
