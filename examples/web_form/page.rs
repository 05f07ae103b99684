//! The frame of all pages, the form, and what became of a mail.

use lettre::Address;

use crate::desk::fresh_ticket;
use crate::form::{Form, Mistakes};
use crate::html::{Html, html};
use crate::outcome::{Outcome, Tone, whole_seconds};
use crate::relay::Mood;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Write,
    Status,
    Elsewhere,
}

pub fn whole(title: &str, place: Place, content: Html, mood: Option<Mood>) -> Html {
    let link = |to: Place, path: &'static str, text: &'static str| {
        let current = if place == to {
            html! { " aria-current=\"page\"" }
        } else {
            Html::default()
        };
        html! { "<a href=\"" (path) "\"" (current) ">" (text) "</a>" }
    };
    html! {
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta name=\"color-scheme\" content=\"light dark\">\n<title>" (title) " · web_form</title>\n"
        "<link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"/style.css\">\n"
        (scripts(place))
        "</head>\n<body>\n<header><div class=\"bar\"><span class=\"name\">web_form</span><nav aria-label=\"Pages\">"
        (link(Place::Write, "/", "Write")) (link(Place::Status, "/status", "Status"))
        "<a href=\"/metrics\">Metrics</a></nav></div></header>\n<main>\n"
        (content) (mood.map(|mood| relay(mood, place)))
        "</main>\n</body>\n</html>\n"
    }
}

fn scripts(place: Place) -> Html {
    if place == Place::Status {
        html! {
            "<script src=\"/status.js\" defer></script>\n"
            "<noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript>\n"
        }
    } else {
        Html::default()
    }
}

/// What the embedded relay does, to be chosen.
fn relay(current: Mood, place: Place) -> Html {
    let mut buttons = Html::default();
    for mood in Mood::ALL {
        let pressed = if mood == current { "true" } else { "false" };
        buttons.add(html! {
            "<button name=\"mood\" value=\"" (mood.name()) "\" aria-pressed=\"" (pressed) "\">" (mood.text()) "</button>\n"
        });
    }
    let back = if place == Place::Status { "status" } else { "write" };
    html! {
        "<section class=\"card relay\" aria-labelledby=\"relay\">\n<h2 id=\"relay\">The embedded relay …</h2>\n"
        "<form method=\"post\" action=\"/relay\" class=\"moods\">\n<input type=\"hidden\" name=\"back\" value=\"" (back) "\">\n"
        (buttons) "</form>\n</section>\n"
    }
}

pub fn form(form: &Form, mistakes: &Mistakes, ticket: &str, from: &Address) -> Html {
    let is_wrong = *mistakes != Mistakes::default();
    let banner = if is_wrong {
        html! { "<div class=\"banner bad\" role=\"alert\"><h1>Please look again</h1><p>Nothing was sent.</p></div>\n" }
    } else {
        html! { "<h1>Write a mail</h1>\n<p class=\"hint\">It is sent while you wait, and you are told what became of it.</p>\n" }
    };
    html! { (banner) (fields(form, mistakes, ticket, from, "Send")) }
}

fn fields(form: &Form, mistakes: &Mistakes, ticket: &str, from: &Address, button: &'static str) -> Html {
    let from: &str = from.as_ref();
    html! {
        "<form method=\"post\" action=\"/\" class=\"card mail\" accept-charset=\"utf-8\">\n"
        "<input type=\"hidden\" name=\"ticket\" value=\"" (ticket) "\">\n"
        "<p class=\"from\">From <strong>" (from) "</strong></p>\n"
        "<p><label for=\"to\">To</label>\n<input id=\"to\" name=\"to\" type=\"email\" required autocomplete=\"email\" maxlength=\"254\" "
        "placeholder=\"user@example.com\" value=\"" (&form.to) "\"" (described("to", mistakes.to)) ">" (mistake("to", mistakes.to)) "</p>\n"
        "<p><label for=\"subject\">Subject</label>\n<input id=\"subject\" name=\"subject\" maxlength=\"200\" autocomplete=\"off\" value=\""
        (&form.subject) "\"" (described("subject", mistakes.subject)) ">" (mistake("subject", mistakes.subject)) "</p>\n"
        "<p><label for=\"text\">Message</label>\n<textarea id=\"text\" name=\"text\" rows=\"7\" required maxlength=\"20000\""
        (described("text", mistakes.text)) ">\n" (&form.text) "</textarea>" (mistake("text", mistakes.text)) "</p>\n"
        "<p><button class=\"send\">" (button) "</button></p>\n</form>\n"
    }
}

fn described(field: &'static str, mistake: Option<&'static str>) -> Option<Html> {
    mistake.map(|_| html! { " aria-invalid=\"true\" aria-describedby=\"" (field) "-mistake\"" })
}

fn mistake(field: &'static str, mistake: Option<&'static str>) -> Option<Html> {
    mistake.map(|text| html! { "<span class=\"mistake\" id=\"" (field) "-mistake\">" (text) "</span>" })
}

pub fn outcome(outcome: &Outcome, form: &Form, from: &Address) -> Html {
    let tone = tone(outcome.tone());
    let wait = outcome
        .retry_after
        .map(|wait| html! { "<p>There is no point in trying again within " (duration(whole_seconds(wait))) ".</p>" });
    let said = outcome.server_said.as_ref().map(|said| html! { "<dt>The relay said</dt><dd><q>" (said) "</q></dd>" });
    let via = outcome.endpoint.as_ref().map(|via| html! { "<dt>Relay</dt><dd>" (via) "</dd>" });
    let banner = html! {
        "<div class=\"banner " (tone) "\" role=\"status\"><h1>" (outcome.headline()) "</h1><p>" (outcome.advice()) "</p>" (wait) "</div>\n"
    };
    let facts = html! {
        "<dl class=\"card facts\">" (said)
        "<dt>Outcome</dt><dd><code>" (outcome.kind) "</code>, HTTP status " (outcome.status) "</dd>"
        (via)
        "<dt>Took</dt><dd>" (milliseconds(outcome.took.as_millis())) ", attempts: " (outcome.attempts) "</dd>"
        "<dt>Number</dt><dd><code>" (&outcome.message_id) "</code></dd>"
        "<dt>Step by step</dt><dd><a href=\"/outcome/" (&outcome.ticket) "\">trace</a></dd></dl>\n"
    };
    let next = if outcome.may_be_sent_again() {
        // The same ticket where the same mail may go through later. What was refused has to be another mail.
        let ticket = if outcome.status == 502 { fresh_ticket() } else { outcome.ticket.clone() };
        fields(form, &Mistakes::default(), &ticket, from, "Send again")
    } else {
        html! { "<p><a class=\"button\" href=\"/\">Write another one</a></p>\n" }
    };
    html! { (banner) (facts) (next) }
}

pub fn in_progress(ticket: &str) -> Html {
    html! {
        "<div class=\"banner doubt\" role=\"status\"><h1>It is being sent</h1>"
        "<p>This mail was handed in already, and nobody knows yet what becomes of it. It is not sent a second time.</p></div>\n"
        "<p><a class=\"button\" href=\"/mail/" (ticket) "\">What became of it?</a></p>\n"
    }
}

pub fn not_found() -> Html {
    html! {
        "<h1>There is nothing here</h1>\n<p class=\"hint\">An outcome is here as soon as it is known, and until a thousand mails later.</p>\n"
        "<p><a class=\"button\" href=\"/\">Write a mail</a></p>\n"
    }
}

pub const fn tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Doubt => "doubt",
        Tone::Bad => "bad",
    }
}

/// For people: "5 minutes", "27 seconds".
pub fn duration(seconds: u64) -> String {
    let (number, unit) = if seconds >= 120 { (seconds.div_ceil(60), "minute") } else { (seconds, "second") };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

pub fn milliseconds(millis: u128) -> String {
    if millis < 10_000 { format!("{millis} ms") } else { format!("{} s", millis / 1000) }
}
