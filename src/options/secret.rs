//! A user name with its password or token.

use std::fmt;

use zeroize::Zeroizing;

/// Credentials of one host: never shown, and overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    identity: Zeroizing<String>,
    secret: Zeroizing<String>,
}

impl Secret {
    pub(crate) fn new(identity: String, secret: String) -> Self {
        Self { identity: Zeroizing::new(identity), secret: Zeroizing::new(secret) }
    }

    /// The user name.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// The password, or the bearer token.
    pub(crate) fn expose(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}
