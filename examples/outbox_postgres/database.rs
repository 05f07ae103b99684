//! A session with PostgreSQL, set up for what an outbox needs of it.

use postgres_sync::{Client, NoTls};

pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Whoever gets an error from the client drops it: the dialogue may be out of step.
pub fn connect(url: &str) -> Result<Client, Error> {
    let mut client = Client::connect(url, NoTls).map_err(|error| format!("PostgreSQL: {error}"))?;
    client.batch_execute(
        // A claim that a crash of the server could take back would be claimed again, and sent again.
        "SET synchronous_commit = on;
         SET statement_timeout = '30s';
         -- A machine that vanishes says no goodbye. Without these the server would believe in its session for two hours.
         SET tcp_keepalives_idle = 10;
         SET tcp_keepalives_interval = 5;
         SET tcp_keepalives_count = 3",
    )?;
    Ok(client)
}
