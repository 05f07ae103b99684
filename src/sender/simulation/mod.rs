//! The whole sender, from `send` to the bytes, in a world with faults.
//!
//! What runs is what ships: sender, retry, pool with its threads, cooldowns, classifier, SMTP session. Simulated are threads, time and
//! the network (`simulation/mod.rs`), and the servers are models with books of their own. One seed is one run. First it storms: hosts
//! go down and come back, connections are cut at any byte, servers refuse, stall, babble and crash on either side of accepting; callers
//! lose patience or cancel; sometimes somebody shuts the sender down. What was promised must hold all the same. Then the weather turns
//! fine, and everything must work again within the longest cooldown and what it takes to notice dead connections.
//!
//! TLS, AUTH and DNS are left outside, as are weights and the order of waiters, which `pool/tests/` holds the pool to.

mod oracle;
mod server;
mod story;
mod tally;
mod timeline;
