//! The same connections under a plain `r2d2::Pool`, for a program that has one already.
//!
//! ```text
//! cargo run --example with_r2d2
//! ```
//!
//! r2d2 gives out connections and nothing else: one host, a round trip before each use, no retry. Errors say as much as the sender's.
//! The guide's page on migrating tells what else the sender does.

use std::error::Error;
use std::thread;

use lettre::Message;
use smtp_pool::testing::TestServer;
use smtp_pool::{FailureKind, Host, SmtpConnectionManager};

const THREADS: usize = 4;
const MESSAGES_EACH: usize = 5;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let server = TestServer::start();
    let host = Host::plain("127.0.0.1").port(server.port());

    let manager = SmtpConnectionManager::new(host)?;
    let pool = r2d2::Pool::builder()
        .max_size(2)
        .min_idle(Some(0)) // otherwise build() connects, and may hang
        .build(manager)?;

    thread::scope(|scope| {
        for worker in 0..THREADS {
            let pool = pool.clone();
            scope.spawn(move || {
                for number in 0..MESSAGES_EACH {
                    match send(&pool, worker, number) {
                        Ok(line) => println!("{line}"),
                        Err(error) => eprintln!("worker {worker}: {error}"),
                    }
                }
            });
        }
    });

    let (messages, connections) = (server.messages().len(), server.connections_accepted());
    println!("{messages} of {} messages arrived over {connections} connection(s).", THREADS * MESSAGES_EACH);
    if messages == THREADS * MESSAGES_EACH { Ok(()) } else { Err("not every message arrived".into()) }
}

fn send(pool: &r2d2::Pool<SmtpConnectionManager>, worker: usize, number: usize) -> Result<String, Box<dyn Error>> {
    let message = Message::builder()
        .from("user@example.com".parse()?)
        .to("user@example.com".parse()?)
        .subject(format!("Message {number} of worker {worker}"))
        .body("Hello from a connection of r2d2.\n".to_owned())?;

    // It goes back to r2d2 when it is dropped, and r2d2 closes it if it is not fit for another mail.
    let mut connection = pool.get()?;
    match connection.send(&message) {
        Ok(receipt) => Ok(format!("Sent over connection {}: {}", receipt.connection_id(), receipt.response())),
        Err(error) if error.kind() == FailureKind::UnknownAfterData => {
            Err(format!("may have been delivered, do not resend blindly: {error}").into())
        }
        Err(error) => Err(error.into()),
    }
}
