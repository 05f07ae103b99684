//! HTTP, as far as this server needs it: answers, a bound on bodies, and who may post.

use std::io::{self, Read};
use std::time::Duration;

use tiny_http::{Header, Request, Response};

use crate::html::Html;
use crate::outcome::whole_seconds;

/// More than anybody types.
pub const LARGEST_BODY: usize = 64 * 1024;

pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
    pub retry_after: Option<Duration>,
    pub location: Option<String>,
}

impl Answer {
    pub fn page(status: u16, html: Html) -> Self {
        Self::new(status, "text/html; charset=utf-8", html.into_string())
    }

    pub fn new(status: u16, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type, body: body.into(), retry_after: None, location: None }
    }

    pub fn text(status: u16, body: &'static str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// What a browser does with it is a GET, so that a reload posts nothing.
    pub fn see(location: impl Into<String>) -> Self {
        Self { location: Some(location.into()), ..Self::text(303, "") }
    }
}

pub fn busy() -> Answer {
    Answer { retry_after: Some(Duration::from_secs(1)), ..Answer::text(503, "Too many requests at a time.\n") }
}

pub fn respond(request: Request, answer: Answer) {
    let is_metrics = answer.content_type.starts_with("text/plain; version");
    let mut response = Response::from_string(answer.body).with_status_code(answer.status);
    let mut put = |name: &'static str, value: &str| {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    };
    put("Content-Type", answer.content_type);
    put("X-Content-Type-Options", "nosniff");
    if !is_metrics {
        // Everything that a page needs comes from here, and nobody frames it.
        put(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
        );
        // Not "no-referrer", which would take the Origin from POSTs.
        put("Referrer-Policy", "same-origin");
        put("Cache-Control", "no-store");
    }
    if let Some(wait) = answer.retry_after {
        put("Retry-After", &whole_seconds(wait).to_string());
    }
    if let Some(location) = answer.location {
        put("Location", &location);
    }
    // A browser that has gone away is nobody's failure.
    drop(request.respond(response));
}

pub fn header<'r>(request: &'r Request, name: &'static str) -> Option<&'r str> {
    request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
}

pub enum BodyError {
    TooLarge,
    Broken(io::Error),
}

pub fn body(request: &mut Request) -> Result<Vec<u8>, BodyError> {
    if request.body_length().is_some_and(|length| length > LARGEST_BODY) {
        return Err(BodyError::TooLarge);
    }
    let mut body = Vec::new();
    // A body in chunks says no length.
    let bound = LARGEST_BODY as u64 + 1;
    request.as_reader().take(bound).read_to_end(&mut body).map_err(BodyError::Broken)?;
    if body.len() > LARGEST_BODY { Err(BodyError::TooLarge) } else { Ok(body) }
}

/// Whether no page of another site is behind this request. Browsers say so themselves: in Sec-Fetch-Site, and older ones with an Origin
/// on each POST. A client that says neither is no browser, and has no cookie or login that another site could misuse.
pub fn is_same_origin(request: &Request) -> bool {
    if let Some(site) = header(request, "Sec-Fetch-Site") {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = header(request, "Origin") else { return true };
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    host.is_some() && host == header(request, "Host")
}
