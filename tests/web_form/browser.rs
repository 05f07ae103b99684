//! A real Chromium without a screen, driven by the protocol of its developer tools, over a pipe: no port, no driver program, no library.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossbeam_channel::{Receiver, unbounded};
use serde_json::{Value, json};

/// For one answer of the browser. Its first one includes its start on a machine that is busy.
const ANSWER: Duration = Duration::from_secs(20);

/// Dies with its value, and its files with it.
pub struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    last_id: u64,
    events: Vec<Value>,
    profile: PathBuf,
}

impl Browser {
    pub fn start() -> Self {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let is_there = |name: &&str| {
            let asked = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            asked.is_ok_and(|status| status.success())
        };
        let name = names.into_iter().find(is_there).unwrap_or_else(|| {
            panic!("this test needs a browser: apt-get install --no-install-recommends chromium (looked for {names:?})")
        });
        let profile = std::env::temp_dir().join(format!("web-form-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        // The pipe is file descriptors 3 and 4, which a shell can give without unsafe code.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", name])
            .args(["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--hide-scrollbars"])
            // As root, which is what a container runs its checks as, there is no sandbox. All it opens is the example.
            .args([
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-extensions",
                "--disable-background-networking",
            ])
            // Going back fetches the page anew, which is the harder case and the one that has an event.
            .args([
                "--disable-features=BackForwardCache",
                "--disable-component-update",
                "--disable-sync",
                "--mute-audio",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let (tell, messages) = unbounded();
        thread::spawn(move || {
            let mut message = Vec::new();
            while said.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                let value = serde_json::from_slice(message.strip_suffix(b"\0").unwrap_or(&message));
                if tell.send(value.unwrap()).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let commands = process.stdin.take().unwrap();
        let session = String::new();
        let mut browser = Self { process, commands, messages, session, last_id: 0, events: Vec::new(), profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", target);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        write!(self.commands, "{message}\0").unwrap();
        loop {
            let answer = self.next(method);
            if answer["id"] == self.last_id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn next(&self, what: &str) -> Value {
        self.messages.recv_timeout(ANSWER).unwrap_or_else(|error| panic!("the browser is silent at {what}: {error}"))
    }

    /// Does something that leads to another page, and waits for that.
    fn leads_on(&mut self, act: impl FnOnce(&mut Self)) {
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        act(self);
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.next("the load of a page");
            self.events.push(event);
        }
    }

    pub fn goto(&mut self, url: &str) {
        self.leads_on(|browser| {
            browser.call("Page.navigate", json!({ "url": url }));
        });
    }

    /// As the button of the browser.
    pub fn go_back(&mut self) {
        self.leads_on(|browser| {
            let history = browser.call("Page.getNavigationHistory", json!({}));
            let before = history["currentIndex"].as_u64().unwrap() - 1;
            let entry = history["entries"][usize::try_from(before).unwrap()]["id"].clone();
            browser.call("Page.navigateToHistoryEntry", json!({ "entryId": entry }));
        });
    }

    pub fn eval(&mut self, script: &str) -> Value {
        let parameters = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", parameters);
        assert!(answer["exceptionDetails"].is_null(), "{script}: {answer}");
        answer["result"]["value"].clone()
    }

    pub fn text(&mut self, script: &str) -> String {
        let value = self.eval(script);
        value.as_str().unwrap_or_else(|| panic!("{script} is {value}")).to_owned()
    }

    /// Types into a field as a keyboard does.
    pub fn types(&mut self, field: &str, text: &str) {
        self.eval(&format!("{{ const it = document.getElementById({field:?}); it.focus(); it.select(); }}"));
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Enter, in the field that has the focus.
    pub fn enters(&mut self) {
        self.leads_on(|browser| {
            for kind in ["keyDown", "keyUp"] {
                let key =
                    json!({ "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r" });
                browser.call("Input.dispatchKeyEvent", key);
            }
        });
    }

    /// A click with the mouse on what is there to be seen.
    pub fn clicks(&mut self, selector: &str) {
        let script = format!(
            "{{ const it = document.querySelector({selector:?}); it.scrollIntoView({{ block: 'center' }}); \
             const box = it.getBoundingClientRect(); [box.x + box.width / 2, box.y + box.height / 2] }}"
        );
        let at = self.eval(&script);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    pub fn follows(&mut self, selector: &str) {
        self.leads_on(|browser| browser.clicks(selector));
    }

    pub fn view(&mut self, width: u32, height: u32, is_dark: bool) {
        let is_phone = width < 600;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// The HTTP status of the page that is shown.
    pub fn status(&mut self) -> u64 {
        self.eval("performance.getEntriesByType('navigation')[0].responseStatus").as_u64().unwrap()
    }

    /// What the pages have done wrong so far: scripts that failed, things that their policy forbids.
    pub fn errors(&self) -> Vec<String> {
        let is_error = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            // Of source "network" is each answer of 4xx and 5xx.
            Some("Log.entryAdded") => {
                event["params"]["entry"]["level"] == "error" && event["params"]["entry"]["source"] != "network"
            }
            _ => false,
        };
        self.events.iter().filter(is_error).map(ToString::to_string).collect()
    }

    /// A picture of the whole page, where somebody wants to see them.
    pub fn shoot(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("WEB_FORM_SHOTS") else { return };
        let shot = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        let png = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), png).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // By its own word, so that its helpers end too; then surely.
        drop(write!(self.commands, "{{\"id\":0,\"method\":\"Browser.close\"}}\0"));
        while self.messages.recv_timeout(Duration::from_secs(5)).is_ok() {}
        drop(self.process.kill());
        drop(self.process.wait());
        drop(std::fs::remove_dir_all(&self.profile));
    }
}
