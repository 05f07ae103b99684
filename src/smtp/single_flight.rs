//! Blocking work that nothing can interrupt, in threads of its own: once for all who want its result at the same time.
//!
//! Whoever wants the result begins the work or joins it, and waits for no longer than its own deadline. However the work ends (by a
//! result, by a panic, or because no thread could be had for it) everybody who has joined is told, and whoever comes later begins anew.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::sync::Mutex;

type Work<K, T> = dyn Fn(&K) -> T + Send + Sync;
type Start = dyn Fn(Box<dyn FnOnce() + Send>) -> io::Result<()> + Send + Sync;
type Answer<T> = Result<T, NoAnswer>;

/// Why a caller has no result.
#[derive(Debug, Clone)]
pub(super) enum NoAnswer {
    /// The caller's deadline passed.
    TimedOut,
    /// The caller wants nothing any more.
    Cancelled,
    /// As much is under way as may be.
    Busy,
    /// No thread could be started.
    NoThread(Arc<io::Error>),
    /// The work panicked.
    Panicked,
}

/// One kind of work, done at most once at a time for each key.
pub(super) struct SingleFlight<K, T> {
    shared: Arc<Shared<K, T>>,
}

struct Shared<K, T> {
    work: Box<Work<K, T>>,
    start: Box<Start>,
    /// Threads there may be at a time: what hangs for ever keeps so many, and no more.
    most: usize,
    /// Work that takes longer is given up for lost: those who come later begin anew instead of joining it.
    patience: Option<Duration>,
    flights: Mutex<Flights<K, T>>,
}

struct Flights<K, T> {
    next: u64,
    under_way: Vec<Flight<K, T>>,
}

/// Work under way: one thread, and those who wait for it.
struct Flight<K, T> {
    number: u64,
    key: K,
    begun: Instant,
    /// Whether what it will bring is good for those who come later.
    is_open: bool,
    waiting: Vec<(u64, Sender<Answer<T>>)>,
}

/// Starts each piece of work in a thread of this name.
fn in_threads(name: &'static str) -> impl Fn(Box<dyn FnOnce() + Send>) -> io::Result<()> + Send + Sync {
    move |body| thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

impl<K: PartialEq + Clone + Send + 'static, T: Clone + Send + 'static> SingleFlight<K, T> {
    /// Work that is done in threads of this name, `most` of them at a time.
    pub(super) fn new(name: &'static str, most: usize, work: impl Fn(&K) -> T + Send + Sync + 'static) -> Self {
        Self::started_by(in_threads(name), most, None, work)
    }

    /// The same for work that may never end: after `patience` it is not joined any longer.
    pub(super) fn impatient(
        name: &'static str,
        most: usize,
        patience: Duration,
        work: impl Fn(&K) -> T + Send + Sync + 'static,
    ) -> Self {
        Self::started_by(in_threads(name), most, Some(patience), work)
    }

    fn started_by(
        start: impl Fn(Box<dyn FnOnce() + Send>) -> io::Result<()> + Send + Sync + 'static,
        most: usize,
        patience: Option<Duration>,
        work: impl Fn(&K) -> T + Send + Sync + 'static,
    ) -> Self {
        let flights = Mutex::new(Flights { next: 0, under_way: Vec::new() });
        Self { shared: Arc::new(Shared { work: Box::new(work), start: Box::new(start), most, patience, flights }) }
    }

    /// The result for `key`, by `deadline`, or none as soon as one of `cancel` is cancelled.
    pub(super) fn get(&self, key: &K, deadline: Deadline, cancel: &[&CancelToken]) -> Answer<T> {
        // Room for the answer and for a cancellation.
        let (answer_to, answers) = bounded(2);
        let _seat = self.board(key, answer_to.clone())?;
        let cut = || {
            let answer_to = answer_to.clone();
            move || drop(answer_to.try_send(Err(NoAnswer::Cancelled)))
        };
        let _registrations = cancel.iter().map(|token| token.on_cancel(cut())).collect::<Vec<_>>();
        answers.recv_deadline(deadline.instant()).unwrap_or(Err(NoAnswer::TimedOut))
    }

    /// What is under way now is for those who have joined it already: whoever comes later gets a result of work begun later.
    pub(super) fn forget(&self) {
        // A mark on each, which `board` reads under the same lock: nobody joins what is under way now once this has returned.
        self.shared.flights.lock().under_way.iter_mut().for_each(|flight| flight.is_open = false);
    }

    /// Joins the work, or has it begin.
    fn board(&self, key: &K, answer_to: Sender<Answer<T>>) -> Result<Seat<'_, K, T>, NoAnswer> {
        let now = clock::now();
        let oldest = self.shared.patience.and_then(|patience| now.checked_sub(patience));
        // Whoever finds nothing to join puts a flight on the list and has it begin. Whatever becomes of it, `Landing` takes it off with
        // all who wait for it, under the same lock: each of them is in exactly one list that will be answered.
        let (flight, number) = self.shared.flights.lock().board(key, answer_to, now, oldest, self.shared.most)?;
        let seat = Seat { shared: &self.shared, flight, number };
        if flight == number {
            let (shared, key) = (Arc::clone(&self.shared), key.clone());
            if let Err(error) = (self.shared.start)(Box::new(move || shared.fly(flight, &key))) {
                // Those who have joined meanwhile would wait for a thread that is not there.
                let answer = Err(NoAnswer::NoThread(Arc::new(error)));
                drop(Landing { shared: &self.shared, flight, answer });
            }
        }
        Ok(seat)
    }
}

impl<K: PartialEq + Clone, T> Flights<K, T> {
    /// Gives a caller a place in a flight that began after `oldest`, or in one of its own. Returns the numbers of the flight and of the
    /// place, which are the same if it is the first.
    fn board(
        &mut self,
        key: &K,
        answer_to: Sender<Answer<T>>,
        now: Instant,
        oldest: Option<Instant>,
        most: usize,
    ) -> Result<(u64, u64), NoAnswer> {
        let number = self.next;
        let is_lost = |begun| oldest.is_some_and(|oldest| begun <= oldest);
        let is_joinable = |it: &Flight<K, T>| it.key == *key && it.is_open && !is_lost(it.begun);
        let flight = match self.under_way.iter().position(is_joinable) {
            Some(position) => {
                let flight = &mut self.under_way[position];
                flight.waiting.push((number, answer_to));
                flight.number
            }
            None if self.under_way.len() >= most => return Err(NoAnswer::Busy),
            None => {
                let waiting = vec![(number, answer_to)];
                self.under_way.push(Flight { number, key: key.clone(), begun: now, is_open: true, waiting });
                number
            }
        };
        self.next += 1;
        Ok((flight, number))
    }

    /// A flight has ended: those who wait for it.
    fn land(&mut self, number: u64) -> Vec<(u64, Sender<Answer<T>>)> {
        let position = self.under_way.iter().position(|flight| flight.number == number);
        position.map(|position| self.under_way.swap_remove(position).waiting).unwrap_or_default()
    }
}

impl<K: PartialEq + Clone, T: Clone> Shared<K, T> {
    fn fly(&self, flight: u64, key: &K) {
        let mut landing = Landing { shared: self, flight, answer: Err(NoAnswer::Panicked) };
        landing.answer = Ok((self.work)(key));
    }
}

/// Answers all who wait for a flight, when dropped: even if the work panics or never begins, nobody waits for a thread that is not there.
struct Landing<'a, K: PartialEq + Clone, T: Clone> {
    shared: &'a Shared<K, T>,
    flight: u64,
    answer: Answer<T>,
}

impl<K: PartialEq + Clone, T: Clone> Drop for Landing<'_, K, T> {
    fn drop(&mut self) {
        // Off the list with all who wait for it, in one step: who came before is answered below, unlocked, and who comes later finds no
        // flight to join.
        let waiting = self.shared.flights.lock().land(self.flight);
        for (_, answer_to) in waiting {
            // A caller whose deadline passed has gone.
            let _ = answer_to.try_send(self.answer.clone());
        }
    }
}

/// A caller's place among those who wait; given up on drop, so that work that hangs for ever gathers nobody who has left.
struct Seat<'a, K, T> {
    shared: &'a Shared<K, T>,
    flight: u64,
    number: u64,
}

impl<K, T> Drop for Seat<'_, K, T> {
    fn drop(&mut self) {
        // Takes its own number off, if the flight has not landed. A channel of which the other end is still there ends with it, which runs
        // nobody's code.
        let mut flights = self.shared.flights.lock();
        if let Some(flight) = flights.under_way.iter_mut().find(|flight| flight.number == self.flight) {
            flight.waiting.retain(|(number, _)| *number != self.number);
        }
    }
}

impl<K, T> fmt::Debug for SingleFlight<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").field("under_way", &self.shared.flights.lock().under_way.len()).finish()
    }
}

#[cfg(test)]
impl<K, T> SingleFlight<K, T> {
    fn waiting(&self) -> usize {
        self.shared.flights.lock().under_way.iter().map(|flight| flight.waiting.len()).sum()
    }

    /// Gives way to other threads until so many wait.
    pub(super) fn until_waiting(&self, count: usize) {
        let deadline = Deadline::after(Duration::from_secs(30));
        while self.waiting() != count {
            assert!(!deadline.is_over(), "they never came");
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::Receiver;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LONG: Duration = Duration::from_secs(30);

    /// Work that takes until something is sent, and brings how often it was begun.
    fn slow(most: usize, patience: Option<Duration>) -> (SingleFlight<&'static str, usize>, Sender<()>, Receiver<()>) {
        let (go_on, goes_on) = bounded::<()>(16);
        let (begun, begins) = bounded(16);
        let count = AtomicUsize::new(0);
        let work = move |_: &&str| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            let _ = begun.send(());
            let _ = goes_on.recv();
            number
        };
        let flights = match patience {
            Some(patience) => SingleFlight::impatient("test", most, patience, work),
            None => SingleFlight::new("test", most, work),
        };
        (flights, go_on, begins)
    }

    #[test]
    fn however_many_want_it_the_work_is_done_once() {
        let (flights, go_on, _) = slow(4, None);
        thread::scope(|scope| {
            let get = || flights.get(&"a", Deadline::after(LONG), &[]).unwrap();
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(get)).collect();
            flights.until_waiting(8);
            go_on.send(()).unwrap();
            assert!(callers.into_iter().all(|caller| caller.join().unwrap() == 1));
        });
        drop(go_on);
        assert_eq!(flights.get(&"a", Deadline::after(LONG), &[]).unwrap(), 2, "nothing is kept");
    }

    #[test]
    fn who_has_left_is_not_waited_for_and_threads_are_bounded() {
        let (flights, _hold, _) = slow(2, None);
        for round in 0..100 {
            let deadline = Deadline::after(Duration::from_micros(10));
            let key = ["a", "b", "c"][round % 3];
            let expected_busy = key == "c";
            match flights.get(&key, deadline, &[]) {
                Err(NoAnswer::Busy) => assert!(expected_busy),
                Err(NoAnswer::TimedOut) => assert!(!expected_busy),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(flights.waiting(), 0, "nobody who has left is remembered");
    }

    #[test]
    fn a_cancelled_caller_leaves_at_once() {
        let (flights, _hold, _) = slow(1, None);
        let token = CancelToken::new();
        let deadline = Deadline::after(LONG);
        let told = thread::scope(|scope| {
            let caller = scope.spawn(|| flights.get(&"a", deadline, &[&token]));
            token.cancel();
            caller.join().unwrap()
        });
        assert!(matches!(told, Err(NoAnswer::Cancelled)), "{told:?}");
        assert!(!deadline.is_over());
    }

    #[test]
    fn a_panic_is_told_to_all_who_joined_and_the_next_begins_anew() {
        let (go_on, goes_on) = bounded::<()>(1);
        let calls = AtomicUsize::new(0);
        let flights = SingleFlight::new("test", 1, move |_: &()| {
            let _ = goes_on.recv();
            assert!(calls.fetch_add(1, Ordering::SeqCst) > 0, "as planned");
        });
        thread::scope(|scope| {
            let callers: Vec<_> =
                (0..3).map(|_| scope.spawn(|| flights.get(&(), Deadline::after(LONG), &[]))).collect();
            flights.until_waiting(3);
            go_on.send(()).unwrap();
            for caller in callers {
                assert!(matches!(caller.join().unwrap(), Err(NoAnswer::Panicked)));
            }
        });
        drop(go_on);
        assert!(flights.get(&(), Deadline::after(LONG), &[]).is_ok());
    }

    #[test]
    fn who_joined_a_thread_that_does_not_start_is_told_and_the_next_begins_anew() {
        let (joined, is_joined) = bounded::<()>(1);
        let tries = AtomicUsize::new(0);
        let start = move |body: Box<dyn FnOnce() + Send>| match tries.fetch_add(1, Ordering::SeqCst) {
            0 => {
                // Not before somebody has joined.
                let _ = is_joined.recv_timeout(LONG);
                Err(io::Error::from(io::ErrorKind::WouldBlock))
            }
            _ => thread::Builder::new().spawn(body).map(drop),
        };
        let flights = SingleFlight::started_by(start, 1, None, |_: &()| 7);
        let deadline = Deadline::after(LONG);
        thread::scope(|scope| {
            let callers: Vec<_> = (0..2).map(|_| scope.spawn(|| flights.get(&(), deadline, &[]))).collect();
            flights.until_waiting(2);
            joined.send(()).unwrap();
            for caller in callers {
                assert!(matches!(caller.join().unwrap(), Err(NoAnswer::NoThread(_))));
            }
            assert!(!deadline.is_over(), "nobody waited in vain");
        });
        assert_eq!(flights.get(&(), Deadline::after(LONG), &[]).unwrap(), 7);
    }

    #[test]
    fn what_was_begun_before_it_was_to_be_forgotten_is_for_those_who_joined_before() {
        let (flights, go_on, begins) = slow(2, None);
        thread::scope(|scope| {
            let early = scope.spawn(|| flights.get(&"a", Deadline::after(LONG), &[]).unwrap());
            begins.recv_timeout(LONG).unwrap();
            flights.forget();
            let late = scope.spawn(|| flights.get(&"a", Deadline::after(LONG), &[]).unwrap());
            begins.recv_timeout(LONG).unwrap();
            let same = scope.spawn(|| flights.get(&"a", Deadline::after(LONG), &[]).unwrap());
            flights.until_waiting(3);
            (0..2).for_each(|_| go_on.send(()).unwrap());
            assert_eq!([early, late, same].map(|caller| caller.join().unwrap()), [1, 2, 2]);
        });
    }

    #[test]
    fn what_hangs_is_given_up_for_lost_as_often_as_there_may_be_threads() {
        let (flights, hold, begins) = slow(3, Some(Duration::ZERO));
        for _ in 0..3 {
            let told = flights.get(&"a", Deadline::after(Duration::from_micros(10)), &[]);
            assert!(matches!(told, Err(NoAnswer::TimedOut)), "{told:?}");
            begins.recv_timeout(LONG).unwrap();
        }
        assert!(matches!(flights.get(&"a", Deadline::after(LONG), &[]), Err(NoAnswer::Busy)));
        // One of them comes to its end after all.
        hold.send(()).unwrap();
        let deadline = Deadline::after(LONG);
        while matches!(flights.get(&"a", Deadline::after(Duration::from_micros(10)), &[]), Err(NoAnswer::Busy)) {
            assert!(!deadline.is_over(), "a place never came free");
        }
    }
}
