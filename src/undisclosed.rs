//! An error in somebody else's words, which we must not repeat.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// An error that came out of the program's own code, and may hold its secrets: handed on by `source()`, and shown by nothing of ours.
///
/// Shared, because one call may have failed for many.
#[derive(Clone)]
pub(crate) struct Undisclosed(Arc<dyn StdError + Send + Sync>);

impl Undisclosed {
    /// The error itself, for the one who asks for it.
    pub(crate) fn disclose(&self) -> &(dyn StdError + 'static) {
        &*self.0
    }
}

impl From<Box<dyn StdError + Send + Sync>> for Undisclosed {
    fn from(error: Box<dyn StdError + Send + Sync>) -> Self {
        Self(Arc::from(error))
    }
}

impl fmt::Debug for Undisclosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Undisclosed")
    }
}

impl fmt::Display for Undisclosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error of the program's own")
    }
}

impl StdError for Undisclosed {}
