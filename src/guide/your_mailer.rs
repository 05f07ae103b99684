use lettre::Message;
use smtp_pool::testing::TestServer;
use smtp_pool::{FailureKind, Host, PoolOptions, SmtpSender};
use std::time::Duration;

/// What the rest of your application hears of a mail.
#[derive(Debug, PartialEq)]
enum Told {
    Sent,
    TryLater,
    Refused,
    Unknown,
}

/// Your code, the thing under test.
struct Mailer {
    sender: SmtpSender,
}

impl Mailer {
    fn welcome(&self, user: &str) -> Told {
        let message = Message::builder()
            .from("Shop <shop@example.com>".parse().unwrap())
            .to(user.parse().unwrap())
            .message_id(Some(format!("<welcome-{user}>")))
            .subject("Welcome")
            .body("It is good to have you.".to_owned())
            .unwrap();
        match self.sender.send(&message) {
            Ok(_) => Told::Sent,
            Err(e) if e.kind() == FailureKind::UnknownAfterData => Told::Unknown,
            Err(e) if e.is_retry_safe() => Told::TryLater,
            Err(_) => Told::Refused,
        }
    }
}

/// Your options as in production, but for the host, and for what would make a test wait.
fn mailer(server: &TestServer) -> Mailer {
    let mut options = PoolOptions::default(); // or read from your file
    options.hosts = vec![Host::plain("127.0.0.1").port(server.port())];
    options.send_timeout = Duration::from_millis(300);
    options.final_reply_timeout = Duration::from_millis(300);
    options.retry_base_delay = Duration::from_millis(10);
    options.reconnect_cooldown = Duration::from_millis(50);
    options.jitter = 0.0;
    Mailer { sender: SmtpSender::from_options(options).unwrap() }
}
