//! The measurements, one file each.

mod counted;
pub mod fleet;
mod lanes;
mod lease;
mod link;
mod memory;
mod outage;
mod scale;
mod sockets;
mod stuffing;
mod throughput;

use crate::Plan;
use crate::report::Report;

/// One measurement.
pub struct Measurement {
    /// By which it is asked for.
    pub name: &'static str,
    /// Adds what it found.
    pub measure: fn(&Plan, &mut Report),
}

pub const ALL: [Measurement; 13] = [
    Measurement { name: "throughput", measure: throughput::plain },
    Measurement { name: "tls", measure: throughput::tls },
    Measurement { name: "link", measure: link::measure },
    Measurement { name: "lease", measure: lease::uncontended },
    Measurement { name: "crowd", measure: lease::contended },
    Measurement { name: "lanes", measure: lanes::measure },
    Measurement { name: "counted", measure: counted::measure },
    Measurement { name: "stuffing", measure: stuffing::measure },
    Measurement { name: "memory", measure: memory::measure },
    Measurement { name: "scale", measure: scale::measure },
    Measurement { name: "outage", measure: outage::measure },
    Measurement { name: "sockets", measure: sockets::measure },
    Measurement { name: "fleet", measure: fleet::measure },
];
