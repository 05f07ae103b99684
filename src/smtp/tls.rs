//! TLS by native-tls.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use native_tls::{HandshakeError, Identity, Protocol, TlsConnector};

use crate::cancel::CancelToken;
use crate::clock::Deadline;
use crate::event::{Event, Fault, Step};
use crate::options::{Host, parse_certificate};
use crate::stage::SendStage;

use super::failure::{Failure, fault_of, no_descriptor};
use super::single_flight::{NoAnswer, SingleFlight};
use super::stream::{DeadlineStream, DeadlineTcp};

type Unmade = (Fault, Arc<dyn std::error::Error + Send + Sync>);

/// The connector of one host, made when it is first needed, and kept.
///
/// Making one reads and parses the system's root certificates: some 150 ms of a processor's time that nothing can interrupt, several
/// times that on a busy machine. So a thread of its own does it, once for all who wait, and each waits no longer than its deadline.
pub(super) struct LazyConnector {
    making: SingleFlight<(), Result<(), Unmade>>,
    made: Arc<OnceLock<TlsConnector>>,
}

impl LazyConnector {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self::made_by(move || connector_for(&host))
    }

    fn made_by(make: impl Fn() -> native_tls::Result<TlsConnector> + Send + Sync + 'static) -> Self {
        let made = Arc::<OnceLock<_>>::default();
        let kept = Arc::clone(&made);
        let making = SingleFlight::new("smtp-pool-tls", 1, move |&()| try_to_make(&make, &kept));
        Self { making, made }
    }

    /// The connector, by `deadline`, or earlier no connector when one of `cancel` is cancelled.
    ///
    /// A time-out says nothing about the host: it has not been asked for anything.
    pub(super) fn get(&self, deadline: Deadline, cancel: &[&CancelToken]) -> Result<&TlsConnector, Failure> {
        let stage = SendStage::BeforeConnect;
        if let Some(connector) = self.made.get() {
            return Ok(connector);
        }
        let panicked = || failure_of(Fault::Broken, io::Error::other("making the TLS connector panicked"), stage);
        match self.making.get(&(), deadline, cancel) {
            Ok(Ok(())) => self.made.get().ok_or_else(panicked),
            Ok(Err((fault, error))) => Err(failure_of(fault, error, stage)),
            Err(NoAnswer::Cancelled) => {
                let error = io::Error::new(io::ErrorKind::NotConnected, "cancelled");
                Err(Failure::transport(Step::Connect, error, stage))
            }
            Err(NoAnswer::NoThread(error)) => Err(failure_of(Fault::LocalShortage, error, stage)),
            Err(NoAnswer::Panicked) => Err(panicked()),
            // There is one connector, so nothing but its making is ever under way.
            Err(NoAnswer::TimedOut | NoAnswer::Busy) => Err(Failure::new(Event::TlsNotReady, stage)),
        }
    }
}

fn try_to_make(
    make: impl Fn() -> native_tls::Result<TlsConnector>,
    made: &OnceLock<TlsConnector>,
) -> Result<(), Unmade> {
    // Somebody may have looked just before it was there, and have come when its making was over.
    if made.get().is_some() {
        return Ok(());
    }
    let short_before = no_descriptor();
    let connector = make().map_err(|error| -> Unmade { (fault_of_tls(&error), Arc::new(error)) })?;
    // The TLS library goes on without the system's roots when it cannot open them. One that trusts nobody must not be kept.
    if let Some(error) = short_before.or_else(no_descriptor) {
        return Err((Fault::LocalShortage, Arc::new(error)));
    }
    // Only this thread sets it: there is one at a time.
    let _ = made.set(connector);
    Ok(())
}

impl fmt::Debug for LazyConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyConnector").field("is_made", &self.made.get().is_some()).finish()
    }
}

fn connector_for(host: &Host) -> native_tls::Result<TlsConnector> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    for certificate in &host.root_certificates {
        builder.add_root_certificate(parse_certificate(certificate)?);
    }
    if let Some(identity) = &host.client_identity {
        builder.identity(Identity::from_pkcs8(&identity.certificates, &identity.key)?);
    }
    builder.danger_accept_invalid_certs(host.accept_invalid_certificates);
    builder.danger_accept_invalid_hostnames(host.accept_invalid_hostnames);
    builder.build()
}

/// Runs the handshake; the name in the certificate must be `name`.
pub(super) fn handshake(connector: &TlsConnector, name: &str, mut tcp: DeadlineTcp) -> Result<DeadlineStream, Failure> {
    // The TLS library drops the stream when it fails: that is to cut it, as everything that is out of step is cut.
    tcp.cut_on_drop(true);
    tcp.begin_handshake();
    match connector.connect(name.trim_end_matches('.'), tcp) {
        Ok(mut stream) => {
            stream.get_mut().end_handshake();
            stream.get_ref().cut_on_drop(false);
            Ok(DeadlineStream::Tls(Box::new(stream)))
        }
        Err(HandshakeError::Failure(error)) => Err(failure(error)),
        Err(HandshakeError::WouldBlock(_)) => {
            // The stream underneath waits until its deadline and never says "try again".
            let error = io::Error::other("the handshake stopped half-way");
            Err(Failure::transport(Step::TlsHandshake, error, SendStage::Connected))
        }
    }
}

fn failure(error: native_tls::Error) -> Failure {
    failure_of(fault_of_tls(&error), error, SendStage::Connected)
}

fn failure_of(fault: Fault, error: impl std::error::Error + Send + Sync + 'static, stage: SendStage) -> Failure {
    let event = Event::Transport(Step::TlsHandshake, fault);
    Failure { source: Some(Box::new(error)), ..Failure::new(event, stage) }
}

/// The fault behind a TLS error. The backends have no common code for a certificate that was not accepted, by us or by the server,
/// but each of them names the thing.
fn fault_of_tls(error: &native_tls::Error) -> Fault {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return fault_of(error);
        }
        cause = error.source();
    }
    let text = error.to_string().to_ascii_lowercase();
    if text.contains("certificate") { Fault::Certificate } else { Fault::Broken }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Sender, bounded};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A connector whose making takes until something is sent, and how often it was begun.
    fn slow() -> (LazyConnector, Sender<()>, Arc<AtomicUsize>) {
        let (go_on, goes_on) = bounded::<()>(16);
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let lazy = LazyConnector::made_by(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = goes_on.recv();
            TlsConnector::builder().disable_built_in_roots(true).build()
        });
        (lazy, go_on, begun)
    }

    #[test]
    fn a_connector_that_takes_long_to_make_keeps_nobody_past_the_deadline() {
        let (lazy, go_on, begun) = slow();
        let deadline = Deadline::after(Duration::from_millis(20));
        let failure = lazy.get(deadline, &[]).unwrap_err();
        assert_eq!(
            (failure.event, failure.stage),
            (Event::TlsNotReady, SendStage::BeforeConnect),
            "no host is to blame"
        );
        let text = failure.event.to_string();
        assert!(text.contains("root certificates") && !text.contains("command"), "{text}");
        assert!(deadline.is_over());
        go_on.send(()).unwrap();
        assert!(lazy.get(Deadline::after(PATIENCE), &[]).is_ok());
        assert_eq!(begun.load(Ordering::SeqCst), 1, "what was begun for another was waited for");
    }

    #[test]
    fn however_many_wait_one_connector_is_made() {
        let (lazy, go_on, begun) = slow();
        thread::scope(|scope| {
            let callers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| lazy.get(Deadline::after(PATIENCE), &[]).is_ok())).collect();
            go_on.send(()).unwrap();
            assert!(callers.into_iter().all(|caller| caller.join().unwrap()));
        });
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn cancelling_ends_the_wait_for_a_connector() {
        let (lazy, _never, _) = slow();
        let token = CancelToken::new();
        let deadline = Deadline::after(PATIENCE);
        let failure = thread::scope(|scope| {
            let waiting = scope.spawn(|| lazy.get(deadline, &[&token]).unwrap_err());
            token.cancel();
            waiting.join().unwrap()
        });
        assert!(matches!(failure.event, Event::Transport(Step::Connect, _)), "{failure:?}");
        assert!(!deadline.is_over());
    }

    #[test]
    fn a_panic_in_the_making_is_told_and_is_no_cancellation() {
        let lazy = LazyConnector::made_by(|| panic!("as planned"));
        let deadline = Deadline::after(PATIENCE);
        let failure = lazy.get(deadline, &[]).unwrap_err();
        assert_eq!(failure.event, Event::Transport(Step::TlsHandshake, Fault::Broken), "{failure:?}");
        assert!(!deadline.is_over());
    }

    #[test]
    fn what_could_not_be_made_is_told_to_all_and_tried_again() {
        let tries = AtomicUsize::new(0);
        let lazy = LazyConnector::made_by(move || match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Err(native_tls::Certificate::from_pem(b"no certificate").err().unwrap()),
            _ => TlsConnector::builder().disable_built_in_roots(true).build(),
        });
        let failure = lazy.get(Deadline::after(PATIENCE), &[]).unwrap_err();
        assert!(
            failure.source.is_some() && matches!(failure.event, Event::Transport(Step::TlsHandshake, _)),
            "{failure:?}"
        );
        assert!(lazy.get(Deadline::after(PATIENCE), &[]).is_ok());
    }
}
