//! lettre's transport with its own pool, its connections under r2d2, and a connection for each message.

use std::time::Duration;

use lettre::address::Envelope;
use lettre::transport::smtp::client::{Certificate, SmtpConnection, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{self, PoolConfig};
use lettre::{SmtpTransport, Transport};

use super::{Load, Peer, Server, timed_calls};
use crate::mail;
use crate::paired::Contestant;

const PATIENCE: Duration = Duration::from_secs(10);

fn tls_parameters(server: &Server) -> Option<TlsParameters> {
    let ca = Certificate::from_pem(server.ca.as_ref()?).unwrap();
    Some(TlsParameters::builder(server.name().to_owned()).add_root_certificate(ca).build().unwrap())
}

/// Opens connections as lettre's transport does.
pub struct Opener {
    server: Server,
    tls: Option<TlsParameters>,
    hello_name: ClientId,
}

impl Opener {
    pub fn new(server: &Server) -> Self {
        Self { server: server.clone(), tls: tls_parameters(server), hello_name: ClientId::default() }
    }

    pub fn open(&self) -> Result<SmtpConnection, smtp::Error> {
        let server = (self.server.name(), self.server.port);
        let mut connection = SmtpConnection::connect(server, Some(PATIENCE), &self.hello_name, None, None)?;
        if let Some(tls) = &self.tls {
            connection.starttls(tls, &self.hello_name)?;
        }
        Ok(connection)
    }
}

/// The message and its callers.
struct Task {
    threads: usize,
    envelope: Envelope,
    content: Vec<u8>,
}

impl Task {
    fn of(load: &Load) -> Self {
        Self { threads: load.connections, envelope: mail::envelope(load.recipients), content: mail::content(load.size) }
    }
}

pub struct LettrePool {
    transport: SmtpTransport,
    task: Task,
}

impl LettrePool {
    pub fn new(load: &Load) -> Self {
        let size = u32::try_from(load.connections).unwrap();
        let transport = SmtpTransport::builder_dangerous(load.server.name())
            .port(load.server.port)
            .tls(tls_parameters(&load.server).map_or(Tls::None, Tls::Required))
            .timeout(Some(PATIENCE))
            .pool_config(PoolConfig::new().max_size(size))
            .build();
        Self { transport, task: Task::of(load) }
    }
}

impl Contestant for LettrePool {
    fn name(&self) -> &str {
        Peer::LettrePool.name()
    }

    fn work(&mut self, amount: usize) -> Duration {
        let Task { threads, envelope, content } = &self.task;
        timed_calls(*threads, amount, || {
            self.transport.send_raw(envelope, content).unwrap();
        })
    }

    fn granularity(&self) -> usize {
        self.task.threads
    }
}

/// What lettre had before it had a pool of its own.
pub struct Manager(pub Opener);

#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error(transparent)]
    Smtp(#[from] smtp::Error),
    #[error("no answer to NOOP")]
    Dead,
}

impl r2d2::ManageConnection for Manager {
    type Connection = SmtpConnection;
    type Error = ManagerError;

    fn connect(&self) -> Result<SmtpConnection, ManagerError> {
        Ok(self.0.open()?)
    }

    fn is_valid(&self, connection: &mut SmtpConnection) -> Result<(), ManagerError> {
        if connection.test_connected() { Ok(()) } else { Err(ManagerError::Dead) }
    }

    fn has_broken(&self, connection: &mut SmtpConnection) -> bool {
        connection.has_broken()
    }
}

pub struct R2d2 {
    pool: r2d2::Pool<Manager>,
    task: Task,
}

impl R2d2 {
    pub fn new(load: &Load) -> Self {
        let size = u32::try_from(load.connections).unwrap();
        let pool = r2d2::Pool::builder().max_size(size).build(Manager(Opener::new(&load.server))).unwrap();
        Self { pool, task: Task::of(load) }
    }
}

impl Contestant for R2d2 {
    fn name(&self) -> &str {
        Peer::R2d2.name()
    }

    fn work(&mut self, amount: usize) -> Duration {
        let Task { threads, envelope, content } = &self.task;
        timed_calls(*threads, amount, || {
            self.pool.get().unwrap().send(envelope, content).unwrap();
        })
    }

    fn granularity(&self) -> usize {
        self.task.threads
    }
}

pub struct ConnectionEach {
    opener: Opener,
    task: Task,
}

impl ConnectionEach {
    pub fn new(load: &Load) -> Self {
        Self { opener: Opener::new(&load.server), task: Task::of(load) }
    }
}

impl Contestant for ConnectionEach {
    fn name(&self) -> &str {
        Peer::LettreEach.name()
    }

    fn work(&mut self, amount: usize) -> Duration {
        let Task { threads, envelope, content } = &self.task;
        timed_calls(*threads, amount, || {
            let mut connection = self.opener.open().unwrap();
            connection.send(envelope, content).unwrap();
            connection.abort();
        })
    }

    fn granularity(&self) -> usize {
        self.task.threads
    }
}
