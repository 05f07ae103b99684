//! Sends mail for a while with a token that keeps expiring, to an embedded server that takes bearer tokens alone (XOAUTH2).
//!
//! ```text
//! cargo run --example oauth2
//! ```
//!
//! A thread plays the token endpoint: it issues tokens of a short life, is away for a while, and comes back; and once the server takes a
//! token no longer that has not expired yet. The program's part is `TokenCache`, what a program with a real endpoint would write: it
//! keeps a token until shortly before its end, and asks for another when it has none. What is printed is what happens on the way.

use std::error::Error;
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use lettre::Message;
use lettre::transport::smtp::authentication::Mechanism;
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{Credentials, Host, SmtpSender};

const USER: &str = "shop@example.com";
const LIFE_OF_A_TOKEN: Duration = Duration::from_millis(1600);

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
        drop(last);
        Ok(token)
    }

    /// What a program does when a token is refused before its time.
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
    // Each token is a password of the same user.
    let server = (1..=20).fold(TestServer::builder().auth_mechanisms(&["XOAUTH2"]), |server, number| {
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
        if number == 17 {
            println!("  server    takes the token no longer");
            server.set_script(Script::new().once(Stage::Auth, [Action::reply("535 5.7.8 revoked\r\n")]));
        }
        let message = message(number)?;
        let mut outcome = sender.send(&message);
        // The pool asked the supplier once more, which saw no reason for another token. It is for the program to know of one.
        if outcome.as_ref().is_err_and(|error| error.response().is_some_and(|reply| reply.code() == 535)) {
            println!("  program   forgets the token that was refused");
            cache.forget();
            sender.refresh_credentials("127.0.0.1")?;
            outcome = sender.send(&message);
        }
        match outcome {
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

/// Issues tokens; the second request, and the third, find it away.
fn start_endpoint() -> Sender<Request> {
    let (requests, received) = mpsc::channel::<Request>();
    let mut issued = 0;
    thread::spawn(move || {
        for (number, answer_to) in received.iter().enumerate() {
            let answer = if (1..3).contains(&number) {
                println!("  endpoint  is away");
                Err("503 Service Unavailable".to_owned())
            } else {
                issued += 1;
                let number = issued;
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
