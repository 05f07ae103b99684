//! A server whose work is waiting: it takes a fixed time for each message and next to no processor.
//!
//! A thread for each connection, no state shared between them, so that what does not scale is the client.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub struct PacedServer {
    addr: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PacedServer {
    pub fn start(service_time: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                for client in listener.incoming().map_while(Result::ok) {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    // Each ends with its connection.
                    thread::spawn(move || drop(serve(&client, service_time)));
                }
            }
        });
        Self { addr, is_over, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }
}

impl Drop for PacedServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.addr));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(stream: &TcpStream, service_time: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream);
    let mut writer = stream;
    let (mut line, mut replies) = (Vec::new(), Vec::new());
    let mut is_content = false;
    writer.write_all(b"220 paced ESMTP\r\n")?;
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if is_content {
            if line != b".\r\n" {
                continue;
            }
            is_content = false;
            pause(service_time);
            replies.extend_from_slice(b"250 2.0.0 taken\r\n");
        } else {
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            is_content = verb == b"DATA";
            replies.extend_from_slice(match &verb[..] {
                b"EHLO" => b"250-paced\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
                b"DATA" => b"354 go on\r\n",
                b"QUIT" => b"221 2.0.0 bye\r\n",
                _ => b"250 2.0.0 ok\r\n",
            });
        }
        // The replies to what came together leave together.
        if lines.buffer().is_empty() {
            writer.write_all(&replies)?;
            replies.clear();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "taking time is what it is for")]
fn pause(time: Duration) {
    thread::sleep(time);
}
