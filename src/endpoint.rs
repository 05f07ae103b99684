//! Where a host is, and which one of the pool's hosts it is.

use std::fmt;
use std::sync::Arc;

/// The name and port a connection was made to.
///
/// Cheap to clone. Displayed as `name:port`; an IPv6 address literal is bracketed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    name: Arc<str>,
    port: u16,
}

impl Endpoint {
    pub(crate) fn new(name: &str, port: u16) -> Self {
        Self { name: name.into(), port }
    }

    /// The host name, as it was configured.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// The position of a host in the pool's list of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostId(pub(crate) usize);
