//! Sends mail for a while with a token that keeps expiring, to an embedded server that takes bearer tokens alone (XOAUTH2).
//!
//! ```text
//! cargo run --example oauth2
//! ```
//!
//! A thread plays the token endpoint: it issues tokens of a short life, is away for a while, and comes back. The program's part is
//! `TokenCache`, what a program with a real endpoint would write: it keeps a token until shortly before its end, and asks for another
//! when it has none. What it prints is what happens on the way.

use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use lettre::Message;
use lettre::transport::smtp::authentication::Mechanism;
use smtp_pool::testing::TestServer;
use smtp_pool::{Credentials, Host, SmtpSender};

const USER: &str = "shop@example.com";
const LIFE_OF_A_TOKEN: Duration = Duration::from_millis(400);

type Failure = Box<dyn Error + Send + Sync>;

/// What the endpoint issues: a token, and how long it will be taken.
struct Issued {
    token: String,
    expires_in: Duration,
}

/// A request to the endpoint, with the way back for its answer.
type Request = Sender<Result<Issued, String>>;

/// Keeps the last token for as long as it lasts.
struct TokenCache {
    endpoint: Sender<Request>,
    last: Mutex<Option<(String, Instant)>>,
}

impl TokenCache {
    /// A token that will be taken for a moment yet.
    fn token(&self) -> Result<String, Failure> {
        let mut last = self.last.lock().map_err(|_| "the cache is broken")?;
        if let Some((token, until)) = &*last {
            if now() < *until {
                return Ok(token.clone());
            }
        }
        let (answer_to, answer) = mpsc::channel();
        self.endpoint.send(answer_to)?;
        // Whoever asks over a network sets a bound of its own: the pool waits no longer than its callers may, but the call goes on.
        let Issued { token, expires_in } = answer.recv_timeout(Duration::from_secs(2))??;
        *last = Some((token.clone(), now() + expires_in / 2));
        Ok(token)
    }

    /// What a program does that was told of a revocation.
    fn forget(&self) {
        if let Ok(mut last) = self.last.lock() {
            *last = None;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a program of its own")]
fn now() -> Instant {
    Instant::now()
}

fn main() -> Result<(), Failure> {
    // Each token is a password of the same user. The sixth is the last one that the endpoint issues here.
    let server = (1..=6).fold(TestServer::builder().auth_mechanisms(&["XOAUTH2"]), |server, number| {
        server.credentials(USER, format!("token {number}"))
    });
    let server = server.start();

    let endpoint = start_endpoint();
    let cache = std::sync::Arc::new(TokenCache { endpoint, last: Mutex::new(None) });
    let supplier = std::sync::Arc::clone(&cache);
    let host = Host::plain("127.0.0.1")
        .port(server.port())
        .dangerous_plaintext_auth(true) // this server has no TLS; yours does
        .auth_mechanisms([Mechanism::Xoauth2])
        .credentials_with(move || {
            println!("  pool      asks for credentials");
            Ok(Credentials::new(USER, supplier.token()?))
        });
    let sender = SmtpSender::builder()
        .host(host)
        .max_size(2)
        .max_messages_per_connection(3)
        .max_retries(0)
        .reconnect_cooldown(Duration::from_millis(200))
        .max_reconnect_cooldown(Duration::from_millis(400))
        .build()?;

    let started = now();
    let (mut sent, mut failed) = (0, 0);
    for number in 1..=30 {
        if number == 16 {
            println!("  program   was told that the token is revoked");
            cache.forget();
            sender.refresh_credentials("127.0.0.1")?;
        }
        match sender.send(&message(number)?) {
            Ok(receipt) => {
                sent += 1;
                println!("message {number:2}  sent over connection {}", receipt.connection_id());
            }
            Err(error) => {
                failed += 1;
                println!("message {number:2}  {error}");
                if let Some(cause) = error.source() {
                    println!("            because: {cause}");
                }
                if !error.is_retry_safe() {
                    return Err(error.into());
                }
            }
        }
        // A shop with little to do.
        pause(Duration::from_millis(100));
    }
    let status = sender.status();
    println!(
        "{sent} sent and {failed} not, over {} connection(s), in {:.1?}; the server has {}.",
        status.created,
        now() - started,
        server.messages().len()
    );
    if server.messages().len() == sent && sent > failed { Ok(()) } else { Err("mail is missing".into()) }
}

/// Issues tokens; the third request, and those right after it, find it away.
fn start_endpoint() -> Sender<Request> {
    let (requests, received) = mpsc::channel::<Request>();
    let issued = AtomicU32::new(0);
    thread::spawn(move || {
        for (number, answer_to) in received.iter().enumerate() {
            let answer = if (2..4).contains(&number) {
                println!("  endpoint  is away");
                Err("503 Service Unavailable".to_owned())
            } else {
                let number = issued.fetch_add(1, Ordering::Relaxed).min(5) + 1;
                println!("  endpoint  issues token {number}");
                Ok(Issued { token: format!("token {number}"), expires_in: LIFE_OF_A_TOKEN })
            };
            // Somebody who has stopped waiting needs no answer.
            let _ = answer_to.send(answer);
        }
    });
    requests
}

#[expect(clippy::disallowed_methods, reason = "the pace of the shop")]
fn pause(time: Duration) {
    thread::sleep(time);
}

fn message(number: usize) -> Result<Message, Failure> {
    Ok(Message::builder()
        .from(USER.parse()?)
        .to("customer@example.com".parse()?)
        .subject(format!("Order {number}"))
        .body("On its way.".to_owned())?)
}
