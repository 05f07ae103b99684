//! Options from a file, and into one: what the feature `serde` adds.
//!
//! By hand and not derived. What derived code says of a value of the wrong type repeats the value, which may be a password, and leaves
//! out the key; and readers put the line of the failure beside it. So a value is read whole before it is judged (`node`), an error is an
//! [`OptionsError`](super::OptionsError) as `build()` makes them, and one about a host waits for `build()` (`host`).

mod host;
mod node;
mod pool;
mod setting;
