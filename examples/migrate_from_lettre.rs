//! Before and after: lettre's own transport, and this crate's sender, behind the same code.
//!
//! ```text
//! cargo run --example migrate_from_lettre
//! ```
//!
//! `notify` is the program. Only the function that builds the transport differs. The embedded servers show that the same mail arrives, and
//! what each way costs.

use std::error::Error;
use std::time::Duration;

use lettre::transport::smtp::PoolConfig;
use lettre::{Message, SmtpTransport, Transport};
use smtp_pool::testing::TestServer;
use smtp_pool::{Host, SmtpSender};

const MESSAGES: usize = 10;

type Failure = Box<dyn Error + Send + Sync>;

fn before(port: u16) -> SmtpTransport {
    SmtpTransport::builder_dangerous("127.0.0.1") // SmtpTransport::starttls_relay("smtp.example.com")?
        .port(port)
        .pool_config(PoolConfig::new().max_size(8).idle_timeout(Duration::from_secs(60)))
        .build()
}

fn after(port: u16) -> Result<SmtpSender, Failure> {
    Ok(SmtpSender::builder()
        .host(Host::plain("127.0.0.1").port(port)) // Host::starttls("smtp.example.com")
        .max_size(8)
        .idle_timeout(Duration::from_secs(60))
        .build()?)
}

/// Was written for lettre, and stays as it is.
fn notify<T: Transport>(mailer: &T, message: &Message) -> Result<(), Failure>
where
    T::Error: Error + Send + Sync + 'static,
{
    mailer.send(message)?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let messages: Vec<Message> = (1..=MESSAGES).map(message).collect::<Result<_, _>>()?;
    let servers = [TestServer::start(), TestServer::start()];

    let mailer = before(servers[0].port());
    messages.iter().try_for_each(|message| notify(&mailer, message))?;

    let mailer = after(servers[1].port())?;
    messages.iter().try_for_each(|message| notify(&mailer, message))?;

    for (way, server) in ["before", "after"].iter().zip(&servers) {
        let transcript = server.transcript(1);
        let noops = transcript.commands().iter().filter(|command| command.starts_with("NOOP")).count();
        println!(
            "{way:>6}: {} mails over {} connection(s), {} round trips, {noops} of them NOOP",
            server.messages().len(),
            server.connections_accepted(),
            transcript.round_trips(),
        );
    }

    // Envelope and content, byte for byte.
    let arrived = servers.each_ref().map(|server| {
        let messages = server.messages();
        messages
            .iter()
            .map(|mail| (mail.mail_from().to_owned(), mail.recipients().to_vec(), mail.content().to_vec()))
            .collect::<Vec<_>>()
    });
    if arrived[0].len() != MESSAGES || arrived[0] != arrived[1] {
        return Err("the two ways differ".into());
    }
    println!("The same mails arrived. The last of them:\n");
    let last = arrived[1].last().map(|(.., content)| String::from_utf8_lossy(content)).unwrap_or_default();
    last.lines().for_each(|line| println!("    {line}"));
    Ok(())
}

fn message(number: usize) -> Result<Message, Failure> {
    Ok(Message::builder()
        .from("Shop <shop@example.com>".parse()?)
        .to("customer@example.com".parse()?)
        .subject(format!("Order {number}"))
        .body("On its way.".to_owned())?)
}
