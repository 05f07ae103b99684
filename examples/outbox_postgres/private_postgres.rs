//! A PostgreSQL for one demo or one test, started by `tests/servers/postgres.sh`.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ends with its value, and nothing is left of it.
pub struct PrivatePostgres {
    directory: PathBuf,
    pub url: String,
}

impl PrivatePostgres {
    pub fn start() -> io::Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("smtp-pool-postgres-{}-{number}", std::process::id()));
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut postgres = Self { directory, url: String::new() };
        if !postgres.script("start").arg(port.to_string()).status()?.success() {
            return Err(io::Error::other("PostgreSQL did not start, see above"));
        }
        postgres.url = fs::read_to_string(postgres.directory.join("url"))?.trim().to_owned();
        Ok(postgres)
    }

    fn script(&self, command: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/postgres.sh");
        let mut bash = Command::new("bash");
        bash.arg(script).arg(command).arg(&self.directory).stdin(Stdio::null()).stdout(Stdio::null());
        bash
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if self.script("stop").status().is_ok_and(|status| status.success()) {
            drop(fs::remove_dir_all(&self.directory));
        }
    }
}
