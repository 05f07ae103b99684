//! The size of the machine, which is printed with every figure.

use std::fs;
use std::thread;

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
