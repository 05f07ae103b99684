//! What the pool is doing, and what became of the latest mails. No address and no text of a server is on this page.

use std::sync::Arc;

use smtp_pool::{HostState, HostStatus, PoolStatus};

use crate::desk::now;
use crate::html::{Html, html};
use crate::outcome::{Outcome, Tone, whole_seconds};
use crate::page::{duration, milliseconds, tone};

/// The part that is fetched again and again.
pub fn live(status: &PoolStatus, recent: &[Arc<Outcome>]) -> Html {
    let counts = &status.counts;
    html! {
        "<div id=\"live\">\n<h1>Status</h1>\n<p class=\"hint\" id=\"refreshed\">Up for " (duration(status.uptime.as_secs())) ".</p>\n"
        "<dl class=\"tiles\">\n"
        (tile("connections", of(counts.total, counts.max_size))) (tile("sending", counts.leased.to_string()))
        (tile("idle", counts.idle.to_string())) (tile("connecting", counts.connecting.to_string()))
        (tile("waiting", counts.waiting.to_string())) (tile("exhausted", status.exhausted.to_string()))
        "</dl>\n"
        "<section class=\"card\" aria-labelledby=\"hosts\"><h2 id=\"hosts\">Hosts</h2>\n" (hosts(&status.hosts)) "</section>\n"
        "<section class=\"card\" aria-labelledby=\"recent\"><h2 id=\"recent\">Latest mails</h2>\n" (outcomes(recent)) "</section>\n</div>\n"
    }
}

fn tile(name: &'static str, value: String) -> Html {
    html! { "<div><dt>" (name) "</dt><dd>" (value) "</dd></div>\n" }
}

fn of(part: usize, whole: usize) -> String {
    format!("{part} of {whole}")
}

fn hosts(hosts: &[HostStatus]) -> Html {
    let mut list = html! { "<ul class=\"hosts\">\n" };
    for host in hosts {
        let (class, state) = match host.state {
            HostState::Available => ("good", "available".to_owned()),
            HostState::CoolingDown { until } => {
                let left = whole_seconds(until.saturating_duration_since(now()));
                ("bad", format!("cooling down, {} left", duration(left)))
            }
            HostState::Probing => ("doubt", "being tried".to_owned()),
            _ => ("doubt", "in a state of its own".to_owned()),
        };
        let error = host.last_error.as_ref().map(|error| {
            html! { "<p class=\"error\">" (&**error) " (" (times(host.consecutive_failures)) ")</p>" }
        });
        list.add(html! {
            "<li><p class=\"host\"><strong>" (host.endpoint.to_string()) "</strong> <span class=\"pill " (class) "\">" (state) "</span></p>"
            "<p class=\"hint\">" (host.leased) " sending, " (host.idle) " idle, " (host.connecting) " connecting; "
            (host.created) " opened so far" (host.connection_limit.map(|limit| html! { ", " (limit) " at a time at most" })) "</p>"
            (error) "</li>\n"
        });
    }
    html! { (list) "</ul>\n" }
}

fn times(failures: u32) -> String {
    if failures > 1 { format!("{failures} times in a row") } else { "once".to_owned() }
}

fn outcomes(recent: &[Arc<Outcome>]) -> Html {
    if recent.is_empty() {
        return html! { "<p class=\"hint\">None yet. <a href=\"/\">Write one</a>.</p>\n" };
    }
    let mut rows = Html::default();
    for outcome in recent {
        let ago = now().saturating_duration_since(outcome.at).as_secs();
        rows.add(html! {
            "<li><span class=\"pill " (tone(outcome.tone())) "\">" (short(outcome.tone())) "</span> <code>" (outcome.kind) "</code>"
            "<span class=\"hint\">" (duration(ago)) " ago, took " (milliseconds(outcome.took.as_millis())) "</span>"
            "<a href=\"/outcome/" (&outcome.ticket) "\">trace<span class=\"unseen\"> of " (&outcome.message_id) "</span></a></li>\n"
        });
    }
    html! { "<ul class=\"recent\">\n" (rows) "</ul>\n" }
}

const fn short(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "Sent",
        Tone::Doubt => "Perhaps sent",
        Tone::Bad => "Not sent",
    }
}

/// One mail, step by step.
pub fn trace(outcome: &Outcome) -> Html {
    html! {
        "<h1>" (outcome.headline()) "</h1>\n"
        "<dl class=\"card facts\"><dt>Outcome</dt><dd><code>" (outcome.kind) "</code> at stage <code>" (outcome.stage) "</code></dd>"
        "<dt>HTTP status</dt><dd>" (outcome.status) "</dd><dt>Attempts</dt><dd>" (outcome.attempts) "</dd>"
        "<dt>Number</dt><dd><code>" (&outcome.message_id) "</code></dd></dl>\n"
        "<section class=\"card\" aria-labelledby=\"trace\"><h2 id=\"trace\">Trace</h2>\n"
        "<pre tabindex=\"0\" role=\"region\" aria-labelledby=\"trace\">" (&outcome.trace) "</pre></section>\n"
        "<p><a class=\"button\" href=\"/status\">Status</a></p>\n"
    }
}
