//! From a host to an open session: look-up, TCP, TLS, greeting, EHLO, STARTTLS, AUTH.

use std::sync::Arc;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::clock::Deadline;
use crate::endpoint::Endpoint;
use crate::event::{Desync, Event, Fault, Policy, Step};
use crate::options::{Credentials, Host, OptionsError, PoolOptions, Security};
use crate::reply::Reply;
use crate::stage::SendStage;

use super::auth;
use super::capabilities::Capabilities;
use super::command::{QUIT, STARTTLS};
use super::connect::connect;
use super::credentials::CredentialSource;
use super::failure::{Failure, fault_of};
use super::resolve::{ResolveError, Resolver};
use super::session::Session;
use super::single_round_trip::WillingHost;
use super::socket::Socket;
use super::stream::{DeadlineStream, DeadlineTcp, cutter};
use super::tls::{self, LazyConnector};
use super::wire::Wire;

/// The bounds on opening a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// Everything but AUTH.
    pub(crate) connect: Duration,
    pub(crate) auth: Duration,
    /// How long sent bytes may stay unacknowledged on an open connection.
    pub(crate) unacknowledged: Duration,
}

impl Timeouts {
    /// Those of `options`. The kernel's patience with what is sent and not acknowledged must not end before ours does: a server that
    /// takes the end of a message late, its window closed meanwhile, has `final_reply_timeout` to answer it.
    pub(crate) fn of(options: &PoolOptions) -> Self {
        let PoolOptions { connect_timeout, auth_timeout, send_timeout, final_reply_timeout, .. } = *options;
        Self { connect: connect_timeout, auth: auth_timeout, unacknowledged: send_timeout.max(final_reply_timeout) }
    }
}

/// Opens sessions to one host.
#[derive(Debug)]
pub(crate) struct SessionOpener {
    host: Arc<Host>,
    endpoint: Endpoint,
    timeouts: Timeouts,
    credentials: CredentialSource,
    resolver: Arc<Resolver>,
    tls: LazyConnector,
    /// Set where messages are wanted in one write.
    willing: Option<Arc<WillingHost>>,
}

impl SessionOpener {
    pub(crate) fn new(mut host: Host, timeouts: Timeouts, resolver: Arc<Resolver>) -> Self {
        let endpoint = Endpoint::new(&host.name, host.port);
        let willing = host.single_round_trip.then(|| Arc::new(WillingHost::new(endpoint.clone())));
        // In one place alone, where rotation finds them.
        let credentials = CredentialSource::new(host.login.take(), timeouts.auth);
        let host = Arc::new(host);
        let tls = LazyConnector::new(Arc::clone(&host));
        Self { host, endpoint, timeouts, credentials, resolver, tls, willing }
    }

    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sessions that are opened from now on are `credentials`' own.
    pub(crate) fn rotate_credentials(&self, credentials: Credentials) {
        self.credentials.rotate(credentials);
    }

    /// Whether [`rotate_credentials`](Self::rotate_credentials) can be given these.
    pub(crate) fn check_rotation(&self, credentials: &Credentials) -> Result<(), OptionsError> {
        self.credentials.check_rotation(credentials)
    }

    /// Sessions that are opened from now on have credentials that were asked for from now on.
    pub(crate) fn forget_credentials(&self) {
        self.credentials.forget();
    }

    /// Opens a session by `deadline` at the latest, or fails early when one of `cancel` is cancelled. The first of them can cut the
    /// session for as long as it lives.
    pub(crate) fn open(&self, deadline: Deadline, cancel: &[&CancelToken]) -> Result<Session, Failure> {
        // Before there is a server that waits for them.
        let credentials = self.credentials.get(deadline.earlier(Deadline::after(self.timeouts.auth)), cancel)?;
        let connect_by = deadline.earlier(Deadline::after(self.timeouts.connect));
        if self.host.security != Security::Plain {
            // The same.
            self.tls.get(connect_by, cancel)?;
        }
        let socket = Arc::new(self.connect(connect_by, cancel)?);
        let mut cutters = cancel.iter().map(|token| token.on_cancel(cutter(&socket))).collect::<Vec<_>>();
        let opening = Opening { credentials, connect_by, deadline, cancel };
        let mut session = self.start(DeadlineTcp::new(socket, connect_by), &opening)?;
        session.keep_cutter(cutters.drain(..).next());
        // The others have let go of it. One that was cancelled before has cut it, and it must not be lent to anybody.
        if cancel.iter().skip(1).any(|token| token.is_cancelled()) {
            session.abort();
            let error = std::io::Error::new(std::io::ErrorKind::NotConnected, "cancelled");
            return Err(Failure::transport(Step::Connect, error, SendStage::Connected));
        }
        Ok(session)
    }

    /// Opens a session over a socket that is connected already, to whatever.
    #[cfg(fuzzing)]
    pub(crate) fn open_over(&self, socket: Socket, deadline: Deadline) -> Result<Session, Failure> {
        let credentials = self.credentials.get(deadline, &[])?;
        let opening = Opening { credentials, connect_by: deadline, deadline, cancel: &[] };
        self.start(DeadlineTcp::new(Arc::new(socket), deadline), &opening)
    }

    /// From a TCP connection to a session.
    fn start(&self, tcp: DeadlineTcp, opening: &Opening<'_>) -> Result<Session, Failure> {
        let stream = match self.host.security {
            Security::ImplicitTls => tls::handshake(self.tls.get(opening.connect_by, &[])?, &self.host.name, tcp)?,
            _ => DeadlineStream::Plain(tcp),
        };
        let mut wire = Wire::new(stream);
        match self.establish(&mut wire, opening) {
            Ok(Established::Ready(capabilities)) => Ok(Session::new(wire, capabilities, self.willing.as_ref())),
            Ok(Established::SwitchToTls) => self.switch_to_tls(wire, opening),
            Err(failure) => Err(give_up(wire, failure)),
        }
    }

    fn connect(&self, deadline: Deadline, cancel: &[&CancelToken]) -> Result<Socket, Failure> {
        let Host { name, port, local_address, .. } = &*self.host;
        let name = name.trim_end_matches('.');
        let addresses = self.resolver.resolve(name, *port, deadline, cancel).map_err(resolve_failure)?;
        connect(&addresses, *local_address, self.timeouts.unacknowledged, deadline, cancel).map_err(|error| {
            // Only what stood can be reset: a server that did not want us was faster than our look at the new connection.
            let stood = error.kind() == std::io::ErrorKind::ConnectionReset;
            let stage = if stood { SendStage::Connected } else { SendStage::BeforeConnect };
            Failure::transport(Step::Connect, error, stage)
        })
    }

    /// Greeting and EHLO, and then AUTH unless STARTTLS comes first.
    fn establish(&self, wire: &mut Wire, opening: &Opening<'_>) -> Result<Established, Failure> {
        expect(wire, Step::Greeting, |code| code == 220)?;
        let capabilities = self.hello(wire)?;
        let wants_tls = match self.host.security {
            Security::StartTls if !capabilities.starttls => {
                return Err(Failure::new(Event::Policy(Policy::StartTlsNotOffered), SendStage::Connected));
            }
            Security::StartTls => true,
            Security::OpportunisticStartTls => capabilities.starttls,
            Security::ImplicitTls | Security::Plain => false,
        };
        if wants_tls && self.start_tls(wire, opening.connect_by)? {
            return Ok(Established::SwitchToTls);
        }
        self.authenticate(wire, &capabilities, opening)?;
        Ok(Established::Ready(capabilities))
    }

    fn hello(&self, wire: &mut Wire) -> Result<Capabilities, Failure> {
        wire.out.extend_from_slice(b"EHLO ");
        match &self.host.hello_name {
            Some(name) => wire.out.extend_from_slice(name.as_bytes()),
            None => {
                let literal = own_literal(wire.stream());
                wire.out.extend_from_slice(literal.as_bytes());
            }
        }
        wire.out.extend_from_slice(b"\r\n");
        // 250 is the code of RFC 5321, and the first digit of another one says the same; but 220 is a greeting once more, so that
        // the answer to EHLO is still to come.
        let reply = command(wire, Step::Ehlo, |code| matches!(code, 200..300) && code != 220)?;
        Ok(Capabilities::from_ehlo(&reply))
    }

    /// Asks for TLS; `false` when the server declines and the host's settings let us go on without.
    fn start_tls(&self, wire: &mut Wire, deadline: Deadline) -> Result<bool, Failure> {
        wire.set_deadline(deadline);
        wire.out.extend_from_slice(STARTTLS);
        match command(wire, Step::StartTls, |code| code == 220) {
            Ok(_) => Ok(true),
            Err(Failure { event: Event::Reply(_, 400..), .. })
                if self.host.security == Security::OpportunisticStartTls && !wire.has_leftover() =>
            {
                Ok(false)
            }
            // What came along with the 220 was not said by whoever holds the certificate.
            Err(Failure { event: Event::OutOfStep(_, Desync::Unsolicited), stage, .. }) => {
                Err(Failure::new(Event::InjectedPlaintext, stage))
            }
            Err(failure) => Err(failure),
        }
    }

    /// TLS, EHLO once more, and AUTH. Nothing the server said before is believed any longer.
    fn switch_to_tls(&self, wire: Wire, opening: &Opening<'_>) -> Result<Session, Failure> {
        let DeadlineStream::Plain(tcp) = wire.into_stream() else {
            return Err(Failure::new(Event::Transport(Step::TlsHandshake, Fault::Broken), SendStage::Connected));
        };
        let mut wire = Wire::new(tls::handshake(self.tls.get(opening.connect_by, &[])?, &self.host.name, tcp)?);
        wire.set_deadline(opening.connect_by);
        let capabilities = self.hello(&mut wire).and_then(|capabilities| {
            self.authenticate(&mut wire, &capabilities, opening)?;
            Ok(capabilities)
        });
        match capabilities {
            Ok(capabilities) => Ok(Session::new(wire, capabilities, self.willing.as_ref())),
            Err(failure) => Err(give_up(wire, failure)),
        }
    }

    /// AUTH, unless there are no credentials; once more with others if there are any, since a token may have expired on the way.
    fn authenticate(&self, wire: &mut Wire, server: &Capabilities, opening: &Opening<'_>) -> Result<(), Failure> {
        let Some(credentials) = &opening.credentials else { return Ok(()) };
        let auth_by = opening.deadline.earlier(Deadline::after(self.timeouts.auth));
        wire.set_deadline(auth_by);
        match auth::authenticate(wire, server, &self.host, credentials) {
            // RFC 4954 §4: after a failed AUTH another one may follow in the same session.
            Err(refusal) if auth::is_refusal(&refusal) && !wire.has_leftover() => {
                let Some(others) = self.credentials.others(credentials, auth_by, opening.cancel)? else {
                    return Err(refusal);
                };
                auth::authenticate(wire, server, &self.host, &others)?;
            }
            outcome => outcome?,
        }
        if wire.has_leftover() {
            return Err(Failure::new(Event::OutOfStep(Step::Auth, Desync::Unsolicited), SendStage::Connected));
        }
        Ok(())
    }
}

/// What one session is opened with.
struct Opening<'a> {
    credentials: Option<Arc<Credentials>>,
    /// The bound of everything but AUTH.
    connect_by: Deadline,
    /// The bound of everything.
    deadline: Deadline,
    cancel: &'a [&'a CancelToken],
}

enum Established {
    Ready(Capabilities),
    SwitchToTls,
}

/// Sends what is in the buffer and expects a reply that is `good`.
fn command(wire: &mut Wire, step: Step, good: fn(u16) -> bool) -> Result<Reply, Failure> {
    wire.send().map_err(|error| Failure::transport(step, error, SendStage::Connected))?;
    expect(wire, step, good)
}

/// Reads one reply, whose code must be `good` and which must have nothing behind it: nothing was sent that would have a reply.
fn expect(wire: &mut Wire, step: Step, good: fn(u16) -> bool) -> Result<Reply, Failure> {
    let stage = SendStage::Connected;
    let complete = wire.read().map_err(|error| Failure::wire(step, error, stage))?;
    match complete.code {
        // 221 says that the server closes, whatever it was asked.
        221 | 400.. => Err(Failure::refused(step, wire.to_reply(complete), stage)),
        read if good(read) && wire.has_leftover() => {
            Err(Failure::new(Event::OutOfStep(step, Desync::Unsolicited), stage))
        }
        read if good(read) => Ok(wire.to_reply(complete)),
        read => Err(Failure::new(Event::OutOfStep(step, Desync::WrongClass(read)), stage)),
    }
}

/// The address of our end as [RFC 5321 §4.1.3](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.3) writes it.
fn own_literal(stream: &DeadlineStream) -> String {
    match stream.local_address().map(|address| address.ip().to_canonical()) {
        Ok(std::net::IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Ok(address) => format!("[{address}]"),
        Err(_) => "[127.0.0.1]".to_owned(),
    }
}

fn resolve_failure(error: ResolveError) -> Failure {
    let transport = |fault| Failure::new(Event::Transport(Step::Resolve, fault), SendStage::BeforeConnect);
    match error {
        ResolveError::TimedOut => transport(Fault::TimedOut),
        ResolveError::Busy => Failure::new(Event::ResolverBusy, SendStage::BeforeConnect),
        ResolveError::NoThread(error) => Failure { source: Some(Box::new(error)), ..transport(Fault::LocalShortage) },
        // The resolver needs descriptors too: without any, the host is not to blame.
        ResolveError::Failed(error) => {
            let is_ours = fault_of(&error) == Fault::LocalShortage;
            let fault = if is_ours { Fault::LocalShortage } else { Fault::Broken };
            Failure { source: Some(error.into()), ..transport(fault) }
        }
    }
}

/// Ends a session that did not come about: politely where the server is in step with us, else without a word.
fn give_up(wire: Wire, failure: Failure) -> Failure {
    match failure.event {
        Event::Reply(..) | Event::Policy(_) | Event::NoCredentials(_) => wire.farewell(QUIT),
        _ => wire.abort(),
    }
    failure
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_resolver_without_descriptors_speaks_against_no_host() {
        let event_of = |error| resolve_failure(ResolveError::Failed(Arc::new(error))).event;
        let ours = event_of(io::Error::from_raw_os_error(libc::EMFILE));
        assert_eq!(ours, Event::Transport(Step::Resolve, Fault::LocalShortage));
        let theirs = event_of(io::Error::other("SERVFAIL"));
        assert_eq!(theirs, Event::Transport(Step::Resolve, Fault::Broken));
    }
}
