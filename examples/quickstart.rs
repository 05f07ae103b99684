//! Sends a handful of messages from several threads through one sender, and shows where each went.
//!
//! ```text
//! cargo run --example quickstart                                                   # to an embedded server
//! SMTP_URL=smtp://user:password@relay.example.com:587 cargo run --example quickstart
//! ```
//!
//! With `SMTP_URL`, mail goes from `SMTP_FROM` to `SMTP_TO` (default: `user@example.com` to itself). `SMTP_CA_FILE` names a PEM file
//! with a further root certificate to trust.

use std::error::Error;
use std::{env, fs, thread};

use lettre::Message;
use smtp_pool::testing::TestServer;
use smtp_pool::{Host, SmtpSender};

const THREADS: usize = 4;
const MESSAGES_EACH: usize = 3;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (host, _embedded) = match env::var("SMTP_URL") {
        Ok(url) => (url.parse::<Host>()?, None),
        Err(_) => {
            let server = TestServer::start();
            println!("No SMTP_URL: sending to an embedded server on port {}.", server.port());
            (Host::plain("127.0.0.1").port(server.port()), Some(server))
        }
    };
    let host = match env::var("SMTP_CA_FILE") {
        Ok(path) => host.root_certificate(fs::read(path)?),
        Err(_) => host,
    };
    let from = env::var("SMTP_FROM").unwrap_or_else(|_| "user@example.com".to_owned());
    let to = env::var("SMTP_TO").unwrap_or_else(|_| "user@example.com".to_owned());

    let sender = SmtpSender::builder().host(host).max_size(2).build()?;

    let sent: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                scope.spawn({
                    let (sender, from, to) = (&sender, &from, &to);
                    move || (0..MESSAGES_EACH).filter(|number| send_one(sender, from, to, worker, *number)).count()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(0)).sum()
    });

    let status = sender.status();
    println!("{sent} of {} messages sent over {} connection(s).", THREADS * MESSAGES_EACH, status.created);
    if sent < THREADS * MESSAGES_EACH { Err("not every message was sent".into()) } else { Ok(()) }
}

fn send_one(sender: &SmtpSender, from: &str, to: &str, worker: usize, number: usize) -> bool {
    let message = match message(from, to, worker, number) {
        Ok(message) => message,
        Err(error) => {
            eprintln!("worker {worker}: {error}");
            return false;
        }
    };
    match sender.send(&message) {
        Ok(receipt) => {
            println!(
                "Sent via {} in {} attempt(s), connection {}: {}",
                receipt.endpoint(),
                receipt.attempts(),
                receipt.connection_id(),
                receipt.response()
            );
            true
        }
        Err(error) => {
            eprintln!("worker {worker}: {error}");
            false
        }
    }
}

fn message(from: &str, to: &str, worker: usize, number: usize) -> Result<Message, Box<dyn Error>> {
    Ok(Message::builder()
        .from(from.parse()?)
        .to(to.parse()?)
        .subject(format!("Message {number} of worker {worker}"))
        .body(String::from("Hello from a pooled connection.\n"))?)
}
