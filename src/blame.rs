//! Whose fault a failed connection was: what a classifier says and a pool acts on.

/// What a failure says about the host it happened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Blame {
    /// Nothing: the message, the session or nobody was at fault.
    Nobody,
    /// The host is not well: pause before connecting to it again.
    Host,
    /// The host said that it is not for us (554 in the greeting): pause as long as allowed at once.
    HostForLong,
    /// The host refused our credentials: pause as long as allowed at once, since trying again locks accounts.
    Credentials,
    /// The host will not take more connections from us: stop growing while others live.
    Capacity,
    /// This machine ran out of something (descriptors, ports, memory): the host is not to blame.
    Local,
}
