//! After every row of the fault matrix nothing is left: no thread, no descriptor.
//!
//! A test binary of its own with one test, because threads and descriptors are counted for the whole process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]
#![allow(dead_code, reason = "the rows are shared with fault_matrix.rs, which uses more of them")]

#[path = "fault_matrix/mod.rs"]
mod fault_matrix;

use std::fs;
use std::time::Duration;

use fault_matrix::harness::{self, Row, eventually};
use fault_matrix::{data, end_of_data, envelope, idle, opening};

/// How long a thread that is done may take to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn no_fault_leaves_a_thread_or_a_descriptor_behind() {
    let rows: Vec<Row> = [opening::rows(), idle::rows(), envelope::rows(), data::rows(), end_of_data::rows()]
        .into_iter()
        .flatten()
        .collect();
    // What libraries open once and keep, TLS above all, is open after a first pass.
    for row in rows.iter().filter(|row| matches!(row.id, "F008" | "F021" | "F032")) {
        harness::verdict(row, row.ways[row.ways.len() - 1]);
    }
    let before = held();
    let mut left = Vec::new();
    for row in &rows {
        let way = row.ways[row.ways.len() - 1];
        let differences = harness::verdict(row, way);
        if !eventually(PATIENCE, || held().0 <= before.0 && held().1 <= before.1) {
            left.push(format!("  {} {way:?}: {:?}, before {before:?}; {differences:?}", row.id, held()));
            break;
        }
    }
    assert!(left.is_empty(), "threads and descriptors held after a row:\n{}", left.join("\n"));
}

/// Threads, and open descriptors, of this process.
fn held() -> (usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}
