//! A gate in the middle of Postfix's reception of a message.
//!
//! Postfix's cleanup process asks a table about each line of a message's header (`header_checks`). Here the table is a socket of the
//! test's own: while the gate is shut it does not answer, so cleanup stands still, and with it the SMTP server that feeds it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_shut: bool,
    /// Look-ups that stand before the gate.
    standing: usize,
}

/// The table. Open at first.
#[derive(Clone)]
pub struct HeaderGate {
    port: u16,
    gate: Arc<Gate>,
}

impl HeaderGate {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be bound");
        let port = listener.local_addr().expect("it has an address").port();
        let gate = Arc::new(Gate::default());
        // The threads end with the test's process.
        thread::spawn({
            let gate = Arc::clone(&gate);
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let gate = Arc::clone(&gate);
                    thread::spawn(move || drop(gate.serve(&stream)));
                }
            }
        });
        Self { port, gate }
    }

    /// The line of main.cf that puts it in Postfix's way.
    pub fn setting(&self) -> String {
        format!("header_checks = tcp:127.0.0.1:{}", self.port)
    }

    pub fn shut(&self) {
        self.gate.state.lock().is_shut = true;
    }

    pub fn open(&self) {
        self.gate.state.lock().is_shut = false;
        self.gate.changed.notify_all();
    }

    /// Waits until a message stands before the gate.
    ///
    /// The SMTP server hands a message on in pieces of 4 kB. When the first look-up of a *shorter* message arrives, the server has
    /// therefore read the message's end; with a message that no socket buffer can hold, it cannot have.
    pub fn wait_until_reached(&self) {
        let mut state = self.gate.state.lock();
        let waited = self.gate.changed.wait_while_for(&mut state, |state| state.standing == 0, PATIENCE);
        drop(state);
        assert!(!waited.timed_out(), "no header line was looked up within {PATIENCE:?}");
    }
}

impl Gate {
    /// Knows nothing about any header line. The protocol is that of Postfix's `tcp_table(5)`.
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut questions = BufReader::new(stream.try_clone()?);
        let mut question = Vec::new();
        while questions.read_until(b'\n', &mut question)? > 0 {
            self.pass();
            (&mut &*stream).write_all(b"500 unknown\n")?;
            question.clear();
        }
        Ok(())
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        if state.is_shut {
            state.standing += 1;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |state| state.is_shut);
            state.standing -= 1;
        }
    }
}
