//! The dashboard and the alerts beside `examples/prometheus` ask for metrics, labels and values that there are.
//!
//! What there is, is the table of the guide's page `logging_and_metrics`, which `tests/metrics.rs` holds to what a scrape shows.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::KINDS;
use serde_json::Value;
use smtp_pool::{DiscardCounts, FailureKind, SendStage};

const PAGE: &str = include_str!("../src/guide/logging_and_metrics.md");
const DASHBOARD: &str = include_str!("../examples/prometheus/grafana-dashboard.json");
const ALERTS: &str = include_str!("../examples/prometheus/alerts.yml");

/// Labels that Prometheus itself gives to everything that it scrapes.
const OF_PROMETHEUS: [&str; 2] = ["job", "instance"];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

/// The table on the page, by the names in a scrape.
fn metrics() -> BTreeMap<String, Metric> {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with("| metric |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let metrics = rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let labels = cells[2].split_whitespace().map(|label| label.trim_matches('`').to_owned()).collect();
        (cells[0].trim_matches('`').replace('.', "_"), Metric { kind: cells[1].to_owned(), labels })
    });
    metrics.collect()
}

/// The values that a label of this crate can have; `host` is the user's.
fn values(label: &str) -> Option<Vec<&'static str>> {
    match label {
        "kind" => Some(KINDS.map(FailureKind::as_str).into_iter().chain(["accepted"]).collect()),
        "stage" => {
            let stages = [
                SendStage::BeforeConnect,
                SendStage::Connected,
                SendStage::Authenticated,
                SendStage::EnvelopeStarted,
                SendStage::DataStarted,
                SendStage::DataCompleted,
                SendStage::ServerAccepted,
            ];
            Some(stages.map(SendStage::as_str).to_vec())
        }
        "reason" => Some(DiscardCounts::default().iter().map(|(reason, _)| reason.as_str()).collect()),
        _ => None,
    }
}

/// An expression of the query language of Prometheus cut into names, punctuation, strings and what stands in brackets.
fn tokens(expression: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_:$.".contains(c);
        let length = match first {
            '"' => rest[1..].find('"').unwrap() + 2,
            '[' => rest.find(']').unwrap() + 1,
            '=' | '!' | '<' | '>' => 1 + usize::from(rest[1..].starts_with(['=', '~'])),
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

#[derive(Debug, Default)]
struct Checked {
    metrics: BTreeSet<String>,
    /// Labels that the result has: those that were summed by.
    labels: BTreeSet<String>,
    complaints: Vec<String>,
}

/// Only as much of the language as is used here: what it does not know it complains about.
fn check(expression: &str) -> Checked {
    const FUNCTIONS: [&str; 9] =
        ["sum", "min", "max", "max_over_time", "rate", "increase", "histogram_quantile", "vector", "label_values"];
    let all = metrics();
    let tokens = tokens(expression);
    let mut checked = Checked::default();
    let mut around: Vec<String> = Vec::new();
    let mut by: BTreeSet<String> = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = &*tokens[at];
        let next = tokens.get(at + 1).map_or("", |token| &**token);
        at += 1;
        match token {
            "(" => {
                let function = tokens[..at - 1].last().filter(|name| FUNCTIONS.contains(&&***name));
                // Behind `by (…)` stands the body of the aggregation before it.
                around.push(function.map_or_else(|| "(".to_owned(), Clone::clone));
            }
            ")" => drop(around.pop()),
            "by" => {
                let end = at + tokens[at..].iter().position(|token| token == ")").unwrap();
                by = tokens[at + 1..end].iter().filter(|token| *token != ",").cloned().collect();
                checked.labels.extend(by.iter().cloned());
                at = end + 1;
            }
            "and" | "or" | "unless" => {}
            _ if FUNCTIONS.contains(&token) && next == "(" || FUNCTIONS.contains(&token) && next == "by" => {}
            // The second argument of label_values.
            _ if around.last().is_some_and(|function| function == "label_values") && next == ")" => {}
            _ if token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => {
                let mut say = |what: String| checked.complaints.push(format!("{what} in {expression}"));
                let ends = ["_bucket", "_sum", "_count"];
                let of_histogram =
                    ends.iter().find_map(|end| token.strip_suffix(end)).filter(|it| all.contains_key(*it));
                let name = of_histogram.unwrap_or(token);
                let Some(metric) = all.get(name) else {
                    say(format!("there is no {token}"));
                    continue;
                };
                let is_bucket = token.ends_with("_bucket");
                if (metric.kind == "histogram") != of_histogram.is_some() {
                    say(format!("{token} is no series of a {}", metric.kind));
                }
                let function = around.last().map_or("", |function| &**function);
                let is_rate = ["rate", "increase"].contains(&function);
                if function != "label_values" && is_rate == (metric.kind == "gauge") {
                    say(format!("{token} is a {}", metric.kind));
                }
                let has = |label: &str| {
                    metric.labels.contains(label) || OF_PROMETHEUS.contains(&label) || label == "le" && is_bucket
                };
                by.iter().filter(|label| !has(label)).for_each(|label| say(format!("{token} has no {label}")));
                if is_bucket && !by.contains("le") {
                    say(format!("{token} needs its le"));
                }
                by.clear();
                if next == "{" {
                    let end = at + tokens[at..].iter().position(|token| token == "}").unwrap();
                    for matcher in tokens[at + 1..end].split(|token| token == ",") {
                        let [label, _operator, value] = matcher else { panic!("{matcher:?} in {expression}") };
                        if !has(label) {
                            say(format!("{token} has no {label}"));
                        }
                        for value in value.trim_matches('"').split('|').filter(|value| !value.starts_with('$')) {
                            if values(label).is_some_and(|all| !all.contains(&value)) {
                                say(format!("{label} is never {value}"));
                            }
                        }
                    }
                    at = end + 1;
                }
                checked.metrics.insert(name.to_owned());
            }
            _ => {}
        }
    }
    checked.labels.remove("le");
    checked
}

/// What stands between each `from` and the next `to`.
fn between<'t>(text: &'t str, from: &str, to: char) -> Vec<&'t str> {
    text.split(from).skip(1).map(|rest| rest.split(to).next().unwrap().trim()).collect()
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().unwrap().iter()
}

#[test]
fn the_dashboard_asks_for_what_there_is_and_shows_all_of_it() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut shown = BTreeSet::new();
    for panel in panels(&dashboard).filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{title} answers no question");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let checked = check(target["expr"].as_str().unwrap());
            assert_eq!(checked.complaints, Vec::<String>::new(), "{title}");
            assert!(!checked.metrics.is_empty(), "{title}");
            for label in between(target["legendFormat"].as_str().unwrap(), "{{", '}') {
                assert!(checked.labels.contains(label), "{title}: the result has no {label}");
            }
            shown.extend(checked.metrics);
        }
    }
    assert_eq!(shown, metrics().into_keys().collect::<BTreeSet<_>>(), "each metric has its panel");

    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let checked = check(variable["definition"].as_str().unwrap());
        assert_eq!(checked.complaints, Vec::<String>::new());
    }
    // Those of Grafana begin with two underscores.
    for used in DASHBOARD.split('$').skip(1).map(|rest| rest.trim_start_matches('{')) {
        let name = used.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        assert!(name.starts_with("__") || names.contains(&name), "there is no variable {name}");
    }
}

#[test]
fn the_panels_lie_side_by_side_and_have_their_own_numbers() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut numbers = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{}", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} lies over another", panel["title"]);
            }
        }
    }
    assert!(numbers.len() > 15);
}

#[test]
fn each_alert_asks_for_what_there_is_and_says_what_to_do() {
    let alerts: Value = yaml_serde::from_str(ALERTS).unwrap();
    let rules: Vec<&Value> =
        alerts["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    let names: BTreeSet<_> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    assert!(names.len() == rules.len() && names.len() >= 10, "{names:?}");
    let all = metrics();
    let mut asked = BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        let checked = check(rule["expr"].as_str().unwrap());
        assert_eq!(checked.complaints, Vec::<String>::new(), "{name}");
        asked.extend(checked.metrics);
        assert!(["page", "ticket"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
        let text = |key: &str| rule["annotations"][key].as_str().unwrap_or_else(|| panic!("{name} has no {key}"));
        let (summary, description) = (text("summary"), text("description"));
        assert!(description.len() > 80 && !description.contains('\n'), "{name} says what to do: {description}");
        for label in between(summary, "$labels.", ' ') {
            let label = label.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
            assert!(checked.labels.contains(label), "{name}: the result has no {label}");
        }
        for word in description.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':') {
            let word = word.trim_end_matches(':');
            assert!(!word.starts_with("SmtpPool") || names.contains(word), "{name}: there is no {word}");
            assert!(!word.starts_with("smtp_pool_") || all.contains_key(word), "{name}: there is no {word}");
        }
    }
    for metric in ["send_ambiguous", "acquire_exhausted", "host_available", "host_cooldown_active", "acquire_wait_time"]
    {
        assert!(asked.contains(&format!("smtp_pool_{metric}")), "nothing watches {metric}");
    }
}

#[test]
fn the_check_finds_what_it_is_for() {
    let complaints = |expression: &str| check(expression).complaints.len();
    for good in [
        "sum by (job, host) (increase(smtp_pool_send_ambiguous[5m])) > 0",
        "histogram_quantile(0.99, sum by (le, kind) (rate(smtp_pool_send_duration_bucket{job=~\"$job\"}[$__rate_interval])))",
        "sum(rate(smtp_pool_acquire_wait_time_sum[5m])) / sum(rate(smtp_pool_acquire_wait_time_count[5m]))",
        "max by (host) (max_over_time(smtp_pool_host_cooldown_active[5m])) > 0 and sum by (host) (smtp_pool_host_available) == 0",
        "sum(rate(smtp_pool_send_failed{kind=~\"host_unavailable|shutdown\", stage!=\"connected\"}[5m])) or vector(0)",
        "label_values(smtp_pool_connections_created, host)",
    ] {
        assert_eq!(check(good).complaints, Vec::<String>::new());
    }
    assert_eq!(complaints("sum(rate(smtp_pool_send_succes[5m]))"), 1, "a name misspelt");
    assert_eq!(
        complaints("sum(rate(smtp_pool_send_success_total[5m]))"),
        1,
        "a suffix that the exporter does not write"
    );
    assert_eq!(complaints("sum by (reason) (rate(smtp_pool_send_failed[5m]))"), 1, "a label of another metric");
    assert_eq!(complaints("sum(rate(smtp_pool_waiters[5m]))"), 1, "the rate of a gauge");
    assert_eq!(complaints("sum(smtp_pool_send_success)"), 1, "a counter without its rate");
    assert_eq!(complaints("sum(rate(smtp_pool_lease_duration[5m]))"), 1, "a histogram as a whole");
    assert_eq!(complaints("sum(rate(smtp_pool_send_success_sum[5m]))"), 1, "the sum of a counter");
    assert_eq!(complaints("histogram_quantile(0.9, sum(rate(smtp_pool_lease_duration_bucket[5m])))"), 1, "no le");
    assert_eq!(complaints("sum(smtp_pool_waiters{host=\"a\"})"), 1, "a matcher on a label that is not there");
    assert_eq!(complaints("sum(rate(smtp_pool_send_failed{kind=\"exhausted\"}[5m]))"), 1, "a value that is not there");
    assert_eq!(complaints("avg(smtp_pool_waiters)"), 1, "a function that the check does not know");
}
