//! Doing what a rule of the script says.

use std::time::Duration;

use super::{Connection, Step};
use crate::testing::script::{Action, Stage};
use crate::testing::wire::End;

impl Connection {
    pub(super) fn act(&mut self, stage: Stage, line: &[u8], actions: &[Action]) -> Step {
        let mut decided = false;
        let mut said = Vec::new();
        for action in actions {
            match action {
                Action::Reply(bytes) | Action::Drip { bytes, .. } | Action::Endless { bytes, .. } => {
                    said.extend_from_slice(bytes);
                    if let (false, Some(code)) = (decided, final_code(&said)) {
                        decided = true;
                        self.session.believe(stage, line, code, &said);
                    }
                    match action {
                        Action::Drip { bytes, interval } => {
                            for byte in bytes {
                                self.out.push(*byte);
                                self.flush()?;
                                self.pause(*interval)?;
                            }
                        }
                        Action::Endless { bytes, interval } => loop {
                            self.out.extend_from_slice(bytes);
                            self.flush()?;
                            self.pause(*interval)?;
                        },
                        _ => self.out.extend_from_slice(bytes),
                    }
                }
                Action::Default | Action::Proceed => {
                    let (answer, already) = (*action == Action::Default, std::mem::replace(&mut decided, true));
                    if stage == Stage::Bdat && !already {
                        self.finish_chunk(line, answer)?;
                    } else {
                        let reply = self.session.perform(stage, line);
                        if answer {
                            self.out.extend_from_slice(&reply);
                        }
                    }
                    // What else follows from it (closing after QUIT, say) waits for the end of the list.
                    if stage == Stage::TlsHandshake {
                        self.follow(stage)?;
                    }
                }
                Action::Accept => {
                    decided = true;
                    self.session.store();
                }
                Action::DelayFor(time) => {
                    self.flush()?;
                    self.pause(*time)?;
                }
                Action::Barrier(name) => {
                    self.flush()?;
                    if !self.shared.pass_barrier(&self.link, name) {
                        return Err(End::Reset);
                    }
                }
                Action::Fin => return self.leave(End::Fin),
                Action::Reset => return self.leave(End::Reset),
                Action::HalfClose => {
                    self.flush()?;
                    self.link.half_close();
                }
                Action::CloseNotify => {
                    self.flush()?;
                    self.link.close_notify()?;
                }
                Action::StopReading => {
                    self.flush()?;
                    self.shared.park(&self.link);
                    return Err(End::Gone);
                }
                Action::Silence => {
                    self.flush()?;
                    self.swallow()?;
                }
                Action::StartTlsNow => self.handshake()?,
                Action::ChunkAsCommands => {}
            }
        }
        // The dot ends the transaction whatever the answer (RFC 5321 §4.1.1.4).
        if stage == Stage::EndOfData {
            self.session.end_transaction();
        }
        self.follow(stage)
    }

    fn pause(&self, time: Duration) -> Step {
        if self.shared.pause(&self.link, time) { Ok(()) } else { Err(End::Gone) }
    }
}

/// The code of the first complete reply: three digits on a line that is not to be continued.
fn final_code(said: &[u8]) -> Option<u16> {
    let complete = said.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let mut last =
        complete.filter(|line| line.len() > 3 && line[..3].iter().all(u8::is_ascii_digit) && line[3] != b'-');
    std::str::from_utf8(&last.next()?[..3]).ok()?.parse().ok()
}
