//! Which request gets which answer.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use smtp_pool::{Host, OptionsError};
use tiny_http::{Method, Request};

use crate::desk::{Desk, Handed, fresh_ticket, is_ticket};
use crate::form::{Form, Mistakes};
use crate::html::Html;
use crate::http::{Answer, BodyError, body, is_same_origin, respond};
use crate::page;
use crate::relay::{Mood, Relay};
use crate::settings::{Settings, sender};
use crate::status;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("status.js");

/// Outcomes on the status page.
const SHOWN: usize = 15;

pub struct App {
    desk: Desk,
    relay: Option<Relay>,
    metrics: PrometheusHandle,
}

impl App {
    pub fn new(settings: Settings, metrics: PrometheusHandle) -> Result<Self, OptionsError> {
        let (host, relay) = match settings.relay {
            Some(host) => (host, None),
            None => {
                let relay = Relay::start();
                (Host::plain("127.0.0.1").port(relay.port()), Some(relay))
            }
        };
        Ok(Self { desk: Desk::new(sender(host)?, settings.from), relay, metrics })
    }

    pub fn shutdown(&self, grace: Duration) -> bool {
        self.desk.sender().shutdown(grace)
    }

    pub fn answer(&self, mut request: Request) {
        let answer = self.route(&mut request);
        respond(request, answer);
    }

    fn route(&self, request: &mut Request) -> Answer {
        let path = request.url().split('?').next().unwrap_or_default().to_owned();
        match (request.method(), &*path) {
            (Method::Get | Method::Head, path) => self.get(path),
            (Method::Post, "/" | "/relay") if !is_same_origin(request) => {
                Answer::text(403, "This form was posted by the page of another site.\n")
            }
            (Method::Post, path @ ("/" | "/relay")) => match body(request) {
                Ok(body) if path == "/" => self.send(&body),
                Ok(body) => self.tell_relay(&body),
                Err(BodyError::TooLarge) => Answer::text(413, "A mail from here has 64 KiB at most.\n"),
                Err(BodyError::Broken(error)) => {
                    eprintln!("a request came only in part: {error}");
                    Answer::text(400, "The request came only in part.\n")
                }
            },
            _ => Answer::text(405, "There is nothing here for this method.\n"),
        }
    }

    fn get(&self, path: &str) -> Answer {
        let mood = self.relay.as_ref().map(Relay::mood);
        match path {
            // The ticket is in the address, where a browser finds it again that goes back or reloads. (A hidden field would be a fresh
            // one then, between fields that the browser fills in as they were.)
            "/" => Answer::see(format!("/mail/{}", fresh_ticket())),
            "/status" => {
                let live = status::live(&self.desk.sender().status(), &self.desk.recent(SHOWN));
                Answer::page(200, page::whole("Status", page::Place::Status, live, mood))
            }
            "/status/live" => {
                let live = status::live(&self.desk.sender().status(), &self.desk.recent(SHOWN));
                Answer::page(200, live)
            }
            "/metrics" => Answer::new(200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render()),
            "/style.css" => Answer::new(200, "text/css; charset=utf-8", STYLE),
            "/status.js" => Answer::new(200, "text/javascript; charset=utf-8", SCRIPT),
            _ => {
                let mail = path.strip_prefix("/mail/").filter(|ticket| is_ticket(ticket));
                if let Some(ticket) = mail {
                    return Answer::page(200, page::whole("Write a mail", page::Place::Write, self.mail(ticket), mood));
                }
                match path.strip_prefix("/outcome/").and_then(|ticket| self.desk.outcome(ticket)) {
                    Some(outcome) => {
                        Answer::page(200, page::whole("Outcome", page::Place::Status, status::trace(&outcome), None))
                    }
                    None => {
                        Answer::page(404, page::whole("Not found", page::Place::Elsewhere, page::not_found(), None))
                    }
                }
            }
        }
    }

    /// The form of a mail that can be sent under this ticket, or why none can.
    fn mail(&self, ticket: &str) -> Html {
        match self.desk.handed(ticket) {
            Some(Handed::InProgress) => page::in_progress(ticket),
            Some(Handed::Outcome(outcome)) if !outcome.may_be_sent_again() => {
                page::outcome(&outcome, &Form::default(), self.desk.from())
            }
            _ => page::form(&Form::default(), &Mistakes::default(), ticket, self.desk.from()),
        }
    }

    /// The answer to the form has the status of what became of the mail, so that a program can post as well as a browser.
    fn send(&self, body: &[u8]) -> Answer {
        let (form, ticket) = Form::from_body(body);
        let ticket = ticket.filter(|ticket| is_ticket(ticket)).unwrap_or_else(fresh_ticket);
        let mood = self.relay.as_ref().map(Relay::mood);
        let write = |title, html| page::whole(title, page::Place::Write, html, mood);
        let to = match form.check() {
            Ok(to) => to,
            Err(mistakes) => {
                let html = page::form(&form, &mistakes, &ticket, self.desk.from());
                return Answer::page(422, write("Please look again", html));
            }
        };
        match self.desk.hand_in(ticket.clone(), &form, to) {
            Ok(Handed::Outcome(outcome)) => {
                let html = page::outcome(&outcome, &form, self.desk.from());
                Answer {
                    retry_after: outcome.retry_after,
                    ..Answer::page(outcome.status, write(outcome.headline(), html))
                }
            }
            Ok(Handed::InProgress) => {
                Answer::page(409, page::whole("Being sent", page::Place::Write, page::in_progress(&ticket), mood))
            }
            Err(error) => {
                eprintln!("a mail could not be written: {error}");
                Answer::text(422, "No mail can be made of this.\n")
            }
        }
    }

    fn tell_relay(&self, body: &[u8]) -> Answer {
        let fields: Vec<_> = url::form_urlencoded::parse(body).collect();
        let field = |name: &str| fields.iter().find(|(it, _)| it == name).map(|(_, value)| &**value);
        match (&self.relay, field("mood").and_then(Mood::from_name)) {
            (Some(relay), Some(mood)) => {
                relay.set(mood);
                Answer::see(if field("back") == Some("status") { "/status" } else { "/" })
            }
            (Some(_), None) => Answer::text(422, "The relay knows no such mood.\n"),
            (None, _) => Answer::text(404, "The relay is a real one.\n"),
        }
    }
}
