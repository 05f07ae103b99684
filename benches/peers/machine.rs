//! The size of the machine, which is printed with every figure.

use std::fs;
use std::thread;

#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

pub fn describe() -> Value {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok());
    json!({
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "processor": field("/proc/cpuinfo", "model name"),
        "memory_mb": memory.map(|kilobytes| kilobytes / 1024),
        "system": fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).ok(),
        "load": fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next().map(str::to_owned)),
    })
}

pub fn in_words(machine: &Value) -> String {
    let text = |name: &str| machine[name].as_str().unwrap_or("?").to_owned();
    format!(
        "{} cores ({}), {} MB, Linux {}, load {} before the start",
        machine["cores"],
        text("processor"),
        machine["memory_mb"],
        text("system"),
        text("load")
    )
}

/// While it lives, what this thread starts, threads and programs, runs on one core, and so does this thread.
///
/// A single connection is a ping-pong of two processes. On two cores each of its turns waits for a core to wake up, which can take ten
/// times as long as the work, and never twice the same; on one core a turn is a switch of tasks.
pub struct OneCore {
    #[cfg(target_os = "linux")]
    before: CpuSet,
}

impl OneCore {
    #[cfg(target_os = "linux")]
    pub fn enter() -> Self {
        let before = sched_getaffinity(None).unwrap();
        let last = (0..CpuSet::MAX_CPU).rfind(|&core| before.is_set(core)).unwrap();
        let mut one = CpuSet::new();
        one.set(last);
        sched_setaffinity(None, &one).unwrap();
        Self { before }
    }

    #[cfg(not(target_os = "linux"))]
    pub fn enter() -> Self {
        Self {}
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        sched_setaffinity(None, &self.before).unwrap();
    }
}
