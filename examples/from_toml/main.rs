//! A sender as a file describes it (feature `serde`).
//!
//! ```text
//! cargo run --example from_toml                     # pool.toml beside this file
//! cargo run --example from_toml -- my-pool.toml     # yours: is it right, and do its hosts answer?
//! ```
//!
//! The hosts of the file beside this one do not exist, so an embedded server stands in for them. JSON and YAML are read in the same way,
//! by any crate for serde.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use lettre::Message;
use smtp_pool::testing::TestServer;
use smtp_pool::{Host, PoolOptions, SmtpSender};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    match env::args().nth(1) {
        Some(path) => check(Path::new(&path)),
        None => demonstrate(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/from_toml/pool.toml")),
    }
}

/// All that a program needs.
fn read(path: &Path) -> Result<PoolOptions, Failure> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// Connects to every host, authenticates, and sends nothing.
fn check(path: &Path) -> Result<(), Failure> {
    let sender = SmtpSender::from_options(read(path)?)?;
    let mut all_answer = true;
    for report in sender.verify() {
        match report.result {
            Ok(()) => println!("{}: answers", report.endpoint),
            Err(error) => {
                all_answer = false;
                println!("{}: {error}", report.endpoint);
            }
        }
    }
    if all_answer { Ok(()) } else { Err("not every host answers".into()) }
}

fn demonstrate(path: &Path) -> Result<(), Failure> {
    let mut options = read(path)?;
    println!("The file, with every default, and without any password it may hold:\n");
    for line in toml::to_string(&options)?.lines() {
        println!("{}", format!("    {line}").trim_end());
    }

    println!("\nA file that is wrong is refused, by key and rule:\n");
    for wrong in
        ["max_sise = 4", "acquire_timeout = 5", "max_size = 4\nmin_idle = 5\n[[hosts]]\nname = \"smtp.example.com\""]
    {
        let error = match toml::from_str::<PoolOptions>(wrong) {
            // What can be seen of one key alone is seen while reading, the rest when the sender is built.
            Ok(options) => SmtpSender::from_options(options).err().map(|error| error.to_string()),
            Err(error) => Some(error.message().to_owned()),
        };
        println!("    {}", error.ok_or("a wrong file was taken")?);
    }

    let server = TestServer::start();
    options.hosts = vec![Host::plain("127.0.0.1").port(server.port())];
    let sender = SmtpSender::from_options(options)?;
    let message = Message::builder()
        .from("shop@example.com".parse()?)
        .to("customer@example.com".parse()?)
        .subject("Your order")
        .body("On its way.".to_owned())?;
    let receipt = sender.send(&message)?;
    println!("\nSent via {}: {}", receipt.endpoint(), receipt.response());
    if server.messages().len() == 1 { Ok(()) } else { Err("the mail did not arrive".into()) }
}
