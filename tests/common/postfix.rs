//! A private Postfix for one test, started by `tests/servers/postfix.sh`, and what its log, queue and mailboxes say.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use smtp_pool::Host;

pub const USER: &str = "user@example.com";
pub const PASSWORD: &str = "secret";

/// How long a condition may take to come true before the test is told that it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that another process does without telling anybody.
#[expect(clippy::disallowed_methods, reason = "the state of another process can only be looked at again and again")]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A running Postfix; ends with its value.
pub struct Postfix {
    directory: PathBuf,
    smtp_port: u16,
    tls_port: u16,
    users: String,
    settings: String,
}

impl Postfix {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With further lines of main.cf, separated by semicolons.
    pub fn start_with(settings: &str) -> Self {
        Self::start_for("", settings)
    }

    /// With further users of the same password, separated by blanks.
    pub fn start_for(users: &str, settings: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("smtp-pool-postfix-{}-{number}", std::process::id()));
        let postfix = Self {
            directory,
            smtp_port: free_port(),
            tls_port: free_port(),
            users: users.to_owned(),
            settings: settings.to_owned(),
        };
        postfix.start_again();
        postfix
    }

    pub fn start_again(&self) {
        let started = self
            .script("start")
            .args([self.smtp_port.to_string(), self.tls_port.to_string()])
            .env("SASL_USERS", &self.users)
            .env("POSTFIX_MAIN", &self.settings)
            .stdout(Stdio::null())
            .status()
            .expect("bash runs");
        assert!(
            started.success(),
            "\n\nThis needs a private Postfix, and it did not start (see above).\n\
             Install it with `tests/servers/get-pkgs.sh` (as root, on Debian or Ubuntu) and run this as root.\n"
        );
    }

    pub fn stop(&self) {
        let stopped = self.script("stop").status().expect("bash runs");
        assert!(stopped.success(), "Postfix did not stop");
    }

    /// Has it read its configuration again, with further lines of main.cf. What serves a session goes on with what it has read before;
    /// new sessions have the new.
    pub fn reload(&self, settings: &str) {
        let before = self.processes("smtpd");
        let reloads = self.logged("reload -- version");
        let reloaded = self.script("reload").env("POSTFIX_MAIN", settings).status().expect("bash runs");
        assert!(reloaded.success(), "Postfix did not reload");
        wait_until("its master reloads", || self.logged("reload -- version") > reloads);
        wait_until("what waits for a session has read the new configuration", || {
            let (serving, running) = (self.serving(), self.processes("smtpd"));
            before.iter().all(|process| serving.contains(process) || !running.contains(process))
        });
    }

    fn script(&self, command: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/postfix.sh");
        let mut bash = Command::new("bash");
        bash.arg(script).arg(command).arg(&self.directory).stdin(Stdio::null());
        bash
    }

    /// STARTTLS with credentials.
    pub fn host(&self) -> Host {
        Host::starttls("localhost").port(self.smtp_port).credentials(USER, PASSWORD).root_certificate(self.ca("ca"))
    }

    /// TLS from the first byte, with credentials.
    pub fn tls_host(&self) -> Host {
        Host::implicit_tls("localhost").port(self.tls_port).credentials(USER, PASSWORD).root_certificate(self.ca("ca"))
    }

    /// No TLS and no credentials, for tests that want to see what passes.
    pub fn plain_host(&self) -> Host {
        Host::plain("localhost").port(self.smtp_port)
    }

    /// A CA certificate: `ca` has signed the server's certificate, `other-ca` has not.
    pub fn ca(&self, name: &str) -> Vec<u8> {
        fs::read(self.directory.join(format!("tls/{name}.pem"))).expect("the script makes certificates")
    }

    /// All that its processes have said by now. One of them writes down what the others send it, in the order in which it comes: with a
    /// mark that is sent now, everything before it is in the file.
    pub fn log(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("mark {}", COUNT.fetch_add(1, Ordering::Relaxed));
        let read = || {
            String::from_utf8_lossy(&fs::read(self.directory.join("log/maillog")).expect("Postfix logs")).into_owned()
        };
        let writer = || {
            let socket = UnixDatagram::unbound()?;
            socket.connect(self.directory.join("spool/public/postlog"))?;
            Ok::<_, std::io::Error>(socket)
        };
        // Nobody takes it while Postfix is stopped, and then nothing more comes.
        if writer().and_then(|socket| socket.send(mark.as_bytes())).is_err() {
            return read();
        }
        let mut log = String::new();
        wait_until("Postfix writes down what it is told", || {
            // Without its master the writer ends as well, perhaps with the mark unread; what it does write is in the file by then.
            let has_ended = writer().is_err();
            log = read();
            has_ended || log.contains(&format!("{mark}\n"))
        });
        log
    }

    /// How many lines of the log hold `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// The user of the session that each message came over, by Message-ID.
    pub fn users_of_messages(&self) -> HashMap<String, String> {
        let log = self.log();
        let value = |said: &str, key: &str| Some(said.split_once(key)?.1.split([',', '>']).next()?.to_owned());
        let sessions = entries(&log, "smtpd").filter_map(|(id, said)| Some((id, value(said, "sasl_username=")?)));
        let users: HashMap<_, _> = sessions.collect();
        let messages = entries(&log, "cleanup").filter_map(|(id, said)| Some((id, value(said, "message-id=<")?)));
        messages.filter_map(|(queue_id, id)| Some((id, users.get(queue_id)?.clone()))).collect()
    }

    /// How many queue files with each Message-ID were taken into the queue. Meant for a settled queue.
    pub fn queued(&self) -> HashMap<String, usize> {
        let log = self.log();
        // A queue file may become active more than once; its Message-ID is said once.
        let active = entries(&log, "qmgr").filter(|(_, said)| said.ends_with("(queue active)"));
        let active: HashSet<_> = active.map(|(queue_id, _)| queue_id).collect();
        let mut queued = HashMap::new();
        for (_, said) in entries(&log, "cleanup").filter(|(queue_id, _)| active.contains(queue_id)) {
            if let Some(id) = said.strip_prefix("message-id=<").and_then(|rest| rest.strip_suffix('>')) {
                *queued.entry(id.to_owned()).or_default() += 1;
            }
        }
        queued
    }

    /// How often each Message-ID is in the queue, of messages that hold `end` too. Meant for a queue that everything stays in; unlike
    /// the log, it misses nothing when Postfix is killed.
    pub fn taken(&self, end: &str) -> HashMap<String, usize> {
        let mut taken = HashMap::new();
        for queue in ["incoming", "active", "deferred", "hold"] {
            let Ok(files) = fs::read_dir(self.directory.join("spool").join(queue)) else { continue };
            for file in files.flatten().filter(is_complete) {
                let text = fs::read(file.path()).expect("a queue file can be read");
                let text = String::from_utf8_lossy(&text);
                let id = text.split_once("Message-ID: <").and_then(|(_, rest)| rest.split_once('>'));
                if let (Some((id, _)), true) = (id, text.contains(end)) {
                    *taken.entry(id.to_owned()).or_default() += 1;
                }
            }
        }
        taken
    }

    /// Waits until every message that was taken into the queue has left it.
    pub fn settle(&self) {
        let holds_mail = |queue: &str| {
            let Ok(files) = fs::read_dir(self.directory.join("spool").join(queue)) else { return false };
            let mails: Vec<fs::DirEntry> = files.flatten().filter(is_complete).collect();
            if queue == "incoming" {
                mails.iter().for_each(hasten);
            }
            !mails.is_empty()
        };
        // In the order in which a message passes them, so that it cannot be overlooked on its way.
        wait_until("every queued message is delivered", || {
            !self.is_receiving() && !["incoming", "active", "deferred"].into_iter().any(holds_mail)
        });
    }

    /// Whether a queue file is being written, perhaps for a client that is long gone.
    fn is_receiving(&self) -> bool {
        let incoming = self.directory.join("spool/incoming");
        self.processes("cleanup").into_iter().any(|process| {
            let files = fs::read_dir(format!("/proc/{process}/fd"));
            let is_queue_file =
                |file: fs::DirEntry| fs::read_link(file.path()).is_ok_and(|to| to.starts_with(&incoming));
            files.is_ok_and(|files| files.flatten().any(is_queue_file))
        })
    }

    /// What was delivered of the messages whose header begins with this Message-ID, once the queue has settled: for each file what
    /// Postfix put in front, and the message.
    pub fn delivered(&self, message_id: &str) -> Vec<(String, Vec<u8>)> {
        let first_line = format!("Message-ID: <{message_id}>\n").into_bytes();
        let mut all = Vec::new();
        for file in self.mailbox() {
            let begins =
                |&start: &usize| file[start..].starts_with(&first_line) && (start == 0 || file[start - 1] == b'\n');
            let Some(start) = (0..file.len().min(4096)).find(begins) else { continue };
            let message = file[start..].to_vec();
            all.push((String::from_utf8_lossy(&file[..start]).into_owned(), message));
        }
        all
    }

    /// Every delivered file, once the queue has settled.
    ///
    /// A Postfix that is stopped between a delivery and its note of it delivers again when it is back. What it took once counts once:
    /// files are the same to the byte only if they come from the same queue file, whose name is in them.
    pub fn mailbox(&self) -> BTreeSet<Vec<u8>> {
        self.settle();
        let Ok(files) = fs::read_dir(self.directory.join("mail/inbox/new")) else { return BTreeSet::new() };
        files.map(|file| fs::read(file.expect("a mailbox can be listed").path()).expect("mail can be read")).collect()
    }

    /// The processes that serve SMTP connections now.
    pub fn serving(&self) -> Vec<u32> {
        let log = self.log();
        let mut serving = Vec::new();
        for line in log.lines() {
            let Some((_, rest)) = line.split_once("/smtpd[") else { continue };
            let Some((process, what)) = rest.split_once("]: ") else { continue };
            let process: u32 = process.parse().expect("a process has a number");
            if what.starts_with("connect from ") {
                serving.push(process);
            } else if what.starts_with("disconnect from ") {
                serving.retain(|&other| other != process);
            }
        }
        // The number of one that was killed, of which the log has no end, may be another's by now.
        let spool = self.directory.join("spool");
        let is_here = |process| fs::read_link(format!("/proc/{process}/cwd")).is_ok_and(|folder| folder == spool);
        serving.retain(|&process| is_here(process));
        serving
    }

    /// The running processes of the name `name` that the master has started.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        self.children(|status| status.name == name)
    }

    /// Every running process that the master has started.
    pub fn family(&self) -> Vec<u32> {
        self.children(|_| true)
    }

    fn children(&self, are_meant: impl Fn(&Status) -> bool) -> Vec<u32> {
        let master = self.master();
        let all = fs::read_dir("/proc").expect("there is a /proc");
        all.flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|&process| {
                status(process).is_some_and(|status| status.parent == master && !status.is_zombie && are_meant(&status))
            })
            .collect()
    }

    /// The master, and everything it has started.
    pub fn all_processes(&self) -> Vec<u32> {
        let master = self.master();
        let all = fs::read_dir("/proc").expect("there is a /proc");
        let all = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.filter(|&process| process == master || status(process).is_some_and(|status| status.parent == master))
            .collect()
    }

    /// Ends all of it at once, as a loss of power would.
    pub fn kill(&self) {
        // Without its master nothing is started any more.
        signal("STOP", &[self.master()]);
        kill(&self.all_processes());
    }

    /// Stops the master, and then whatever it has started.
    pub fn freeze(&self) -> Frozen {
        signal("STOP", &[self.master()]);
        Frozen::new(self.all_processes())
    }

    pub fn master(&self) -> u32 {
        let text = fs::read_to_string(self.directory.join("pid")).expect("the script notes the master");
        text.trim().parse().expect("a process has a number")
    }

    pub fn smtp_port(&self) -> u16 {
        self.smtp_port
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let stopped = self.script("stop").status();
        if thread::panicking() {
            // It may not even have started.
            let log = fs::read_to_string(self.directory.join("log/maillog"));
            eprintln!("Postfix said:\n{}", log.unwrap_or_default());
        }
        if stopped.is_ok_and(|status| status.success()) {
            drop(fs::remove_dir_all(&self.directory));
        }
    }
}

/// What a process of this name says of queue files: "…/PROCESS[1]: QUEUEID: SAID".
fn entries<'l>(log: &'l str, process: &str) -> impl Iterator<Item = (&'l str, &'l str)> {
    let process = format!("/{process}[");
    log.lines().filter_map(move |line| line.split_once(&process)?.1.split_once("]: ")?.1.split_once(": "))
}

/// A queue file counts once its execute bit is set; one without is being received, or was left behind half-way.
fn is_complete(file: &fs::DirEntry) -> bool {
    file.metadata().is_ok_and(|data| data.permissions().mode() & 0o100 != 0)
}

/// A queue manager that a reload has started puts off by a minute what its predecessor is still delivering, which it notes as the file's
/// time. Nobody waits for that here.
#[expect(clippy::disallowed_methods, reason = "a file's time is of the wall clock")]
fn hasten(file: &fs::DirEntry) {
    // It may be gone by now.
    let Ok(file) = fs::File::open(file.path()) else { return };
    let now = SystemTime::now();
    if file.metadata().and_then(|data| data.modified()).is_ok_and(|put_off| put_off > now) {
        drop(file.set_modified(now));
    }
}

/// Processes that are stopped, as on a machine that hangs: their kernel still answers for them. They go on when this is dropped.
pub struct Frozen(Vec<u32>);

impl Frozen {
    pub fn new(processes: Vec<u32>) -> Self {
        signal("STOP", &processes);
        Self(processes)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

/// Sends a signal. One of the processes may have ended by itself.
fn signal(name: &str, processes: &[u32]) {
    let list = processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    drop(Command::new("sh").args(["-c", &format!("kill -{name} {list} 2>/dev/null")]).status());
}

/// Kills processes as a crash or the kernel would: without a word.
pub fn kill(processes: &[u32]) {
    signal("KILL", processes);
    wait_until("killed processes are gone", || !processes.iter().any(|&process| is_alive(process)));
}

struct Status {
    name: String,
    is_zombie: bool,
    parent: u32,
}

fn status(process: u32) -> Option<Status> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    Some(Status {
        name: field("Name:")?,
        is_zombie: field("State:")?.starts_with('Z'),
        parent: field("PPid:")?.parse().ok()?,
    })
}

/// A zombie that nobody has reaped yet is dead.
fn is_alive(process: u32) -> bool {
    status(process).is_some_and(|status| !status.is_zombie)
}

/// A port that nobody listens on, below those that the kernel gives to outgoing connections: a server that is restarted must find it
/// free again.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % u32::from(COUNT)).expect("a small number");
    (0..COUNT)
        .map(|_| FIRST + (NEXT.fetch_add(1, Ordering::Relaxed) + process.wrapping_mul(37)) % COUNT)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("there is a free port")
}
