//! A page that sends mail and says what became of it: a web server with a thread for each request, over one sender.
//!
//! ```text
//! cargo run --example web_form                                            # with an embedded relay that can be told to misbehave
//! SMTP_URL=smtp://user:password@relay.example.com:587 cargo run --example web_form
//! ```
//!
//! Then open <http://127.0.0.1:8025>. `WEB_FORM_LISTEN` names another address, `SMTP_FROM` the sender of the mails, and `SMTP_CA_FILE` a
//! PEM file with a further root certificate to trust. Ctrl-C ends it: requests that run are answered.
//!
//! | path | what is there |
//! |---|---|
//! | `/` | leads to the form of a new mail; `POST` to it sends |
//! | `/mail/…` | the form of this mail, or what became of it |
//! | `/status` | hosts, connections, waiters and the last outcomes, live |
//! | `/outcome/…` | one outcome with its trace |
//! | `/metrics` | for Prometheus |
//!
//! # What to take from it
//!
//! - `outcome.rs`: how each kind of failure is told to a browser, as the guide has it (`failure_recipes`). 504 means that the mail *may*
//!   have been sent, so the page shows no button to send it again.
//! - `desk.rs`: a form carries a ticket, which becomes the Message-ID. A second click, a reload or an impatient proxy comes with the same
//!   ticket and is told what became of the first; nothing is sent twice.
//! - `settings.rs`: the guide's options for a web application, and a deadline for each request.
//! - `html.rs`: nothing that came from outside gets into a page unescaped, by type.
//!
//! # What it leaves to others
//!
//! Whoever reaches the page can send mail to anybody, so it listens on this machine alone; put your own login before it. TLS, limits of
//! header sizes and of slow clients, and of requests by client are the business of the reverse proxy that such a server stands behind.

#![allow(unreachable_pub, missing_docs, reason = "a program has no users but its own")]

mod app;
mod desk;
mod form;
mod html;
mod http;
mod outcome;
mod page;
mod relay;
mod settings;
mod status;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, select};
use metrics_exporter_prometheus::PrometheusBuilder;
use tiny_http::{Request, Server};

use app::App;
use settings::Settings;

/// Requests at a time. Beyond them 503 at once is kinder than a thread more: the pool has room for fewer still.
const MOST_REQUESTS: usize = 64;

/// How long running requests may take when the program is told to end. Longer than the deadline of one.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("web_form: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Before the sender, whose counters begin with it. Buckets, because quantiles of several processes cannot be added up.
    let metrics = PrometheusBuilder::new().set_buckets(&[0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0])?;
    let metrics = metrics.install_recorder()?;
    let settings = Settings::from_environment()?;
    let server = Arc::new(Server::http(&*settings.listen)?);
    let app = Arc::new(App::new(settings, metrics.clone())?);
    println!("Listening on http://{}", server.server_addr());

    let is_stopping = stop_on_signal(&server)?;
    let (running, stopped) = bounded::<()>(0);
    let upkeep = thread::spawn(move || {
        // Without it, the recorder would keep every sample until somebody scrapes.
        loop {
            select! {
                recv(stopped) -> _ => break,
                default(Duration::from_secs(5)) => metrics.run_upkeep(),
            }
        }
    });
    let ended = serve(&server, &app, &is_stopping);
    drop(running);
    drop(upkeep.join());
    ended
}

/// Answers requests, each in a thread of its own, until told to stop; then lets those that run come to an end.
fn serve(server: &Server, app: &Arc<App>, is_stopping: &AtomicBool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let requests = Arc::new(AtomicUsize::new(0));
    // Every thread holds the sending half; once all are gone, the receiving half says so.
    let (running, all_ended) = bounded::<()>(0);
    let broken = loop {
        let request = match server.recv() {
            Ok(request) => request,
            Err(_) if is_stopping.load(Ordering::SeqCst) => break None,
            Err(error) => break Some(error),
        };
        if requests.fetch_add(1, Ordering::SeqCst) >= MOST_REQUESTS {
            requests.fetch_sub(1, Ordering::SeqCst);
            http::respond(request, http::busy());
            continue;
        }
        let place = Place(Arc::clone(&requests));
        let (app, running) = (Arc::clone(app), running.clone());
        let answer = move |request: Request| {
            let (_place, _running) = (place, running);
            app.answer(request);
        };
        // A request that gets no thread is dropped, and tiny_http answers 500.
        drop(thread::Builder::new().name("request".into()).spawn(move || answer(request)));
    };
    drop(running);
    println!("Draining");
    // Sends that run end by themselves; those that wait for a connection are told that the sender is shut down, which is 503.
    let is_drained = app.shutdown(GRACE);
    let _disconnected = all_ended.recv_timeout(GRACE);
    println!("{}", if is_drained { "Ended" } else { "Ended, and cut off what still ran" });
    broken.map_or(Ok(()), |error| Err(error.into()))
}

/// One of the places for requests, given back however the request ends.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The first Ctrl-C or SIGTERM drains, the second one ends at once.
fn stop_on_signal(server: &Arc<Server>) -> Result<Arc<AtomicBool>, ctrlc::Error> {
    let is_stopping = Arc::new(AtomicBool::new(false));
    let (flag, server) = (Arc::clone(&is_stopping), Arc::clone(server));
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        server.unblock();
    })?;
    Ok(is_stopping)
}
