//! One door for locks and threads.
//!
//! `pool/` takes its primitives from here and nowhere else, so that a model checker's can stand in for them.

pub(crate) use parking_lot::{Condvar, Mutex};
