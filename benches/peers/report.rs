//! What was measured, against what was promised: the table on the terminal, and the same as JSON.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::paired::Spread;

/// What SPEC §12 asks of a figure.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {}", figure(least)),
            Self::AtMost(most) => format!("≤ {}", figure(most)),
        }
    }

    fn json(self) -> Value {
        match self {
            Self::AtLeast(least) => json!({ "at_least": least }),
            Self::AtMost(most) => json!({ "at_most": most }),
        }
    }
}

/// One figure.
#[derive(Debug, Clone)]
pub struct Row {
    pub what: String,
    /// Of the figure itself; `×` for a ratio.
    pub unit: &'static str,
    /// None: shown for comparison, nothing was promised.
    pub bound: Option<Bound>,
    /// Or why it could not be measured.
    pub measured: Result<Spread, String>,
    /// What it is made of.
    pub note: String,
}

impl Row {
    /// A figure that was promised.
    pub fn promised(what: impl Into<String>, unit: &'static str, bound: Bound, measured: Spread) -> Self {
        Self { what: what.into(), unit, bound: Some(bound), measured: Ok(measured), note: String::new() }
    }

    /// A figure beside it.
    pub fn shown(what: impl Into<String>, unit: &'static str, measured: Spread) -> Self {
        Self { what: what.into(), unit, bound: None, measured: Ok(measured), note: String::new() }
    }

    /// A figure that this machine cannot give.
    pub fn unmeasured(what: impl Into<String>, bound: Option<Bound>, why: impl Into<String>) -> Self {
        Self { what: what.into(), unit: "", bound, measured: Err(why.into()), note: String::new() }
    }

    pub fn with_note(self, note: String) -> Self {
        Self { note, ..self }
    }

    /// Whether the promise is kept, if there is one. What could not be measured is not.
    pub fn verdict(&self) -> Option<bool> {
        let bound = self.bound?;
        Some(self.measured.as_ref().is_ok_and(|spread| bound.holds(spread.median)))
    }

    const fn word(&self) -> &'static str {
        match (&self.bound, &self.measured) {
            (None, _) => "",
            (Some(_), Err(_)) => "not measured",
            (Some(Bound::AtLeast(least)), Ok(spread)) if spread.median >= *least => "pass",
            (Some(Bound::AtMost(most)), Ok(spread)) if spread.median <= *most => "pass",
            (Some(_), Ok(_)) => "SHORT",
        }
    }

    fn line(&self) -> String {
        let bound = self.bound.map_or_else(String::new, Bound::text);
        let what = if self.note.is_empty() { self.what.clone() } else { format!("{} ({})", self.what, self.note) };
        // What is too long for its column has a line of its own.
        let what = if what.chars().count() > 74 { format!("{what}\n  {:<74}", "") } else { format!("{what:<74}") };
        match &self.measured {
            Ok(spread) => {
                let range = if spread.runs == 1 {
                    "counted".to_owned()
                } else {
                    format!("{} … {} in {} runs", figure(spread.least), figure(spread.most), spread.runs)
                };
                let median = format!("{} {}", figure(spread.median), self.unit);
                format!("  {what} {bound:>9} {median:>16}   {range:<32} {}", self.word())
            }
            Err(why) => format!("  {what} {bound:>9} {:>16}   {why:<32} {}", "–", self.word()),
        }
    }

    fn json(&self, group: &str) -> Value {
        let mut value = json!({ "group": group, "what": self.what, "unit": self.unit });
        if let Some(bound) = self.bound {
            value["bound"] = bound.json();
            value["verdict"] = json!(self.word());
        }
        if !self.note.is_empty() {
            value["note"] = json!(self.note);
        }
        match &self.measured {
            Ok(Spread { median, least, most, runs }) => {
                value["median"] = json!(median);
                value["least"] = json!(least);
                value["most"] = json!(most);
                value["runs"] = json!(runs);
            }
            Err(why) => value["not_measured"] = json!(why),
        }
        value
    }
}

/// A number as people read it: three digits, no more.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 99.95 => {
            let digits = format!("{value:.0}");
            let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
            let mut grouped = String::from(sign);
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place) % 3 == 0 {
                    grouped.push('\u{202f}');
                }
                grouped.push(digit);
            }
            grouped
        }
        size if size >= 9.995 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        size if size >= 0.1 => format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        _ => format!("{value:.4}").trim_end_matches('0').to_owned(),
    }
}

/// A bar of the chart: one peer, as a ratio to the limit.
#[derive(Debug, Clone)]
pub struct Bar {
    pub name: String,
    pub ratio: Spread,
}

/// Peers under one load.
#[derive(Debug, Clone)]
pub struct Panel {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    groups: Vec<(String, Vec<Row>)>,
    pub panels: Vec<Panel>,
}

impl Report {
    /// Takes the rows of one measurement, and shows them at once.
    pub fn add(&mut self, group: &str, rows: Vec<Row>) {
        println!("\n{group}");
        for row in &rows {
            println!("{}", row.line());
        }
        self.groups.push((group.to_owned(), rows));
    }

    fn rows(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.groups.iter().flat_map(|(group, rows)| rows.iter().map(move |row| (group.as_str(), row)))
    }

    /// The promises once more, without what was shown beside them.
    pub fn promises(&self) -> String {
        let mut text = String::new();
        for (_, row) in self.rows().filter(|(_, row)| row.bound.is_some()) {
            writeln!(text, "{}", row.line()).expect("a string takes everything");
        }
        text
    }

    /// How many promises are not kept, or could not be looked at.
    pub fn shortfalls(&self) -> usize {
        self.rows().filter(|(_, row)| row.verdict() == Some(false)).count()
    }

    pub fn write_json(&self, path: &Path, machine: &Value, is_quick: bool) -> io::Result<()> {
        let rows: Vec<Value> = self.rows().map(|(group, row)| row.json(group)).collect();
        let whole = json!({ "machine": machine, "quick": is_quick, "rows": rows });
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, format!("{whole:#}\n"))
    }
}
