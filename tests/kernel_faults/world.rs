//! Where a case runs: a process of its own, and what else it needs to be alone with its fault.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::harness::{CASE, Case};

/// How long one case may take before it is ended and told to hang.
const BOUND: Duration = Duration::from_secs(180);

/// Somebody that nothing else on the machine belongs to.
const NOBODY: &str = "64199";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// A process.
    Own,
    /// A process that trusts those whose certificates are in a file of its own, as OpenSSL lets one name it.
    Trusting,
    /// Its own network, mounts and processes, with the rights to change them.
    Network,
    /// A user whom limits on processes hold for: they do not for root.
    Unprivileged,
    /// A signal a millisecond, with a handler that restarts nothing (`storm.c`).
    Storm,
    /// A wall clock that can be set (libfaketime).
    Faketime,
}

impl World {
    /// What this machine lacks, if it lacks something.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Own | Self::Trusting => None,
            Self::Network => {
                static MISSING: OnceLock<Option<String>> = OnceLock::new();
                MISSING.get_or_init(network_missing).clone()
            }
            Self::Unprivileged if is_root() => {
                let mut setpriv = Command::new("setpriv");
                why_not(setpriv.args(["--reuid", NOBODY, "--clear-groups", "true"]))
            }
            Self::Unprivileged => None,
            Self::Storm => storm_library().as_ref().err().cloned(),
            Self::Faketime => {
                let none = || "there is no libfaketime (Debian's package of that name)".to_owned();
                faketime_library().map_or_else(|| Some(none()), |_| None)
            }
        }
    }

    /// The command that a case is started with; the program is on its standard input too, for those who may not search its folder.
    fn command(self, program: &Path) -> Command {
        let mut command = match self {
            Self::Network => {
                let mut unshare = unshare();
                unshare.arg(program);
                unshare
            }
            Self::Unprivileged if is_root() => {
                let mut setpriv = Command::new("setpriv");
                setpriv.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "/proc/self/fd/0"]);
                setpriv
            }
            _ => Command::new(program),
        };
        match self {
            Self::Trusting => {
                command.env("SSL_CERT_FILE", scratch("roots"));
            }
            Self::Storm => {
                let library = storm_library().as_ref().expect("it was looked for before");
                command.env("LD_PRELOAD", library).env("STORM_COUNT", scratch("storm"));
            }
            Self::Faketime => {
                // Each look at the wall clock reads the file anew, and the other clocks are left alone.
                command
                    .env("LD_PRELOAD", faketime_library().expect("it was looked for before"))
                    .env("FAKETIME_NO_CACHE", "1")
                    .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                    .env("FAKETIME_TIMESTAMP_FILE", scratch("clock"));
            }
            _ => {}
        }
        command
    }

    /// What is left to do inside.
    pub fn settle_in(self) {
        if self == Self::Network {
            super::network::run("ip", &["link", "set", "lo", "up"]);
        }
    }
}

/// Runs the case. The output of a case that failed is the error.
pub fn live(case: &Case) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = case.world.command(&program);
    let itself = File::open(&program).map_err(|error| error.to_string())?;
    command.env(CASE, case.name).stdin(itself).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let (said, output) = mpsc::channel();
    listen(child.stdout.take(), said.clone());
    listen(child.stderr.take(), said);
    let give_up = super::common::now() + BOUND;
    let mut text = String::new();
    for _ in 0..2 {
        match output.recv_timeout(give_up.saturating_duration_since(super::common::now())) {
            Ok(part) => text.push_str(&part),
            Err(_) => {
                drop(child.kill());
                drop(child.wait());
                return Err(format!("{text}it hung: ended after {BOUND:?}"));
            }
        }
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(text) } else { Err(format!("{text}{status}")) }
}

/// Tells all that the stream held, once it has ended.
fn listen(stream: Option<impl Read + Send + 'static>, said: mpsc::Sender<String>) {
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stream) = stream {
            drop(stream.read_to_end(&mut text));
        }
        drop(said.send(String::from_utf8_lossy(&text).into_owned()));
    });
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program in a private network; without root, one that is root in there.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if !is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    // All processes in there end with the first one, and that one with its parent.
    unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]);
    unshare
}

fn network_missing() -> Option<String> {
    for tool in ["ip", "nft"] {
        if let Some(why) = why_not(Command::new(tool).arg("-V")) {
            return Some(why);
        }
    }
    // As the cases will use it: addresses, packet filter, settings, mounts.
    let trial = "ip link set lo up && nft add table inet trial && cat /proc/sys/net/ipv4/tcp_retries2 \
                 >/proc/sys/net/ipv4/tcp_retries2 && mount --bind /etc/resolv.conf /etc/resolv.conf";
    why_not(unshare().args(["sh", "-c", trial]))
}

/// Why the command does not do, if it does not.
fn why_not(command: &mut Command) -> Option<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("{program}: {error}")),
    }
}

/// A file of this run of the tests.
fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kernel-{}-{name}", std::process::id()))
}

/// `storm.c`, compiled with the compiler that also links Rust programs here.
fn storm_library() -> &'static Result<OsString, String> {
    static LIBRARY: OnceLock<Result<OsString, String>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel_faults/storm.c");
        let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("storm.so");
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        why_not(&mut cc).map_or_else(|| Ok(library.into_os_string()), Err)
    })
}

fn faketime_library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|folder| folder.path().join("faketime"));
    let libraries = folders.map(|folder| folder.join("libfaketimeMT.so.1"));
    libraries.chain([PathBuf::from("/usr/lib/faketime/libfaketimeMT.so.1")]).find(|library| library.exists())
}
