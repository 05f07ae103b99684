//! A trace as text, in columns.

use std::fmt::{self, Write};
use std::time::Duration;

use super::{BEGINNING, Trace};

/// A duration in three digits or so: `412 µs`, `3.1 ms`, `310 ms`, `1.8 s`, `312 s`.
#[derive(Clone, Copy)]
pub(super) struct Short(pub(super) Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let (whole, tenths, unit) = match micros {
            0 => return f.write_str("0 ms"),
            1..1_000 => return write!(f, "{micros} µs"),
            1_000..1_000_000 => (micros / 1_000, micros % 1_000 / 100, "ms"),
            _ => (micros / 1_000_000, micros % 1_000_000 / 100_000, "s"),
        };
        match whole {
            100.. => write!(f, "{whole} {unit}"),
            _ => write!(f, "{whole}.{tenths} {unit}"),
        }
    }
}

/// A line for each step; no line end behind the last.
pub(super) fn write(trace: &Trace, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let width = trace.steps().filter_map(|step| step.endpoint()).map(|host| host.to_string().len()).max().unwrap_or(0);
    let mut cell = String::new();
    for (index, step) in trace.steps().enumerate() {
        if index > 0 {
            f.write_char('\n')?;
        }
        if index == BEGINNING && trace.left_out() > 0 {
            writeln!(f, "     ...  {} steps left out", trace.left_out())?;
        }
        set(&mut cell, Short(step.at()))?;
        write!(f, "{cell:>8}  ")?;
        cell.clear();
        if let Some(took) = step.took() {
            set(&mut cell, Short(took))?;
        }
        write!(f, "{cell:>8}  ")?;
        if width > 0 {
            cell.clear();
            if let Some(endpoint) = step.endpoint() {
                set(&mut cell, endpoint)?;
            }
            write!(f, "{cell:<width$}  ")?;
        }
        write!(f, "{}", step.event())?;
    }
    Ok(())
}

fn set(cell: &mut String, value: impl fmt::Display) -> fmt::Result {
    cell.clear();
    write!(cell, "{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_or_so() {
        let text = |micros| Short(Duration::from_micros(micros)).to_string();
        for (micros, shown) in [
            (0, "0 ms"),
            (1, "1 µs"),
            (412, "412 µs"),
            (999, "999 µs"),
            (1_000, "1.0 ms"),
            (3_149, "3.1 ms"),
            (99_999, "99.9 ms"),
            (310_400, "310 ms"),
            (999_999, "999 ms"),
            (1_000_000, "1.0 s"),
            (1_849_000, "1.8 s"),
            (312_000_000, "312 s"),
        ] {
            assert_eq!(text(micros), shown);
        }
    }
}
