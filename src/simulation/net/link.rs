//! One connection: two directions, two ends.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{LONG, network};
use crate::simulation::primitives::{Condvar, Mutex, MutexGuard};
use crate::simulation::world::here;

/// As much room as nobody notices.
pub(crate) const ROOM: usize = 1 << 16;

/// What a connection has to stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// How long a byte takes.
    pub(crate) latency: Duration,
    /// How many bytes may be under way in one direction, or wait to be read there.
    pub(crate) room: usize,
    /// What ends it.
    pub(crate) cut: Option<Cut>,
}

/// The end of a connection: behind so many bytes of one direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) to_server: bool,
    pub(crate) behind: usize,
    pub(crate) how: How,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    Fin,
    Rst,
    Silence,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// A connection.
pub(super) struct Link {
    weather: Weather,
    attempt: usize,
    pipe: Mutex<Pipe>,
    changed: Condvar,
}

#[derive(Default)]
struct Pipe {
    /// What is under way to each side.
    toward: [Lane; 2],
    ends: [End; 2],
    /// It has been cut: nothing new gets through.
    cut: Option<How>,
    /// All that the client has written, or tried to.
    offered: Vec<u8>,
    /// How much of that was taken from it.
    taken: usize,
}

#[derive(Default)]
struct Lane {
    /// Bytes, and when they arrive.
    flight: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes that take up room.
    unread: usize,
    carried: usize,
    fin: Option<Instant>,
    reset: Option<Instant>,
}

/// What one side has done.
#[derive(Default)]
struct End {
    shut_read: bool,
    shut_write: bool,
    is_closed: bool,
    cuts: bool,
    /// It has been told of the reset, which is told once.
    knows_of_reset: bool,
    is_nonblocking: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

enum Arrived {
    Bytes,
    End,
    Reset,
    /// And nothing will before that time.
    Nothing(Option<Instant>),
}

impl Pipe {
    fn arrived(&mut self, side: usize, now: Instant) -> Arrived {
        let (lane, end) = (&self.toward[side], &mut self.ends[side]);
        if end.shut_read {
            return Arrived::End;
        }
        match lane.flight.front() {
            Some((at, _)) if *at <= now => return Arrived::Bytes,
            _ => {}
        }
        if lane.reset.is_some_and(|at| at <= now) {
            // A pending error is cleared by being read.
            return if std::mem::replace(&mut end.knows_of_reset, true) { Arrived::End } else { Arrived::Reset };
        }
        match lane.flight.front() {
            None if lane.fin.is_some_and(|at| at <= now) => Arrived::End,
            front => Arrived::Nothing(front.map(|(at, _)| *at).into_iter().chain(lane.fin).chain(lane.reset).min()),
        }
    }

    /// The two directions' ends, as a close or a cut brings them about.
    fn finish(&mut self, side: usize, at: Instant) {
        self.toward[side].fin.get_or_insert(at);
    }

    fn reset(&mut self, side: usize, at: Instant) {
        let reset = &mut self.toward[side].reset;
        *reset = Some(reset.map_or(at, |before| before.min(at)));
    }

    fn cut(&mut self, how: How, at: Instant) {
        self.cut = Some(how);
        for side in [CLIENT, SERVER] {
            match how {
                How::Fin => self.finish(side, at),
                How::Rst => self.reset(side, at),
                How::Silence => {}
            }
        }
    }
}

impl Link {
    pub(super) fn new(weather: Weather, attempt: usize) -> Self {
        Self { weather, attempt, pipe: Mutex::default(), changed: Condvar::new() }
    }

    /// All that the client has written, or tried to.
    pub(super) fn offered(&self) -> Vec<u8> {
        self.pipe.lock().offered.clone()
    }

    fn now(&self) -> Instant {
        here().expect("the network is part of a world").now()
    }

    /// Takes `bytes` from `side`, as far as there is room.
    fn carry(&self, pipe: &mut Pipe, side: usize, bytes: &[u8], weather: Weather) -> usize {
        let other = 1 - side;
        let now = self.now();
        let at = now + self.weather.latency;
        let count = bytes.len().min(weather.room.saturating_sub(pipe.toward[other].unread));
        let bytes = &bytes[..count];
        if side == CLIENT {
            pipe.taken += count;
        }
        match pipe.cut {
            // What nobody acknowledges takes up room for ever.
            Some(How::Silence) => pipe.toward[other].unread += count,
            // The other end is gone, and says so.
            Some(How::Fin | How::Rst) => pipe.reset(side, at + self.weather.latency),
            None if pipe.ends[other].is_closed => pipe.reset(side, at + self.weather.latency),
            None => {
                let lane = &mut pipe.toward[other];
                let cut =
                    weather.cut.filter(|cut| cut.to_server == (side == CLIENT) && lane.carried + count > cut.behind);
                let kept = cut.map_or(count, |cut| cut.behind.saturating_sub(lane.carried));
                if kept > 0 {
                    lane.flight.push_back((at, bytes[..kept].to_vec()));
                }
                lane.carried += kept;
                lane.unread += kept;
                if let Some(cut) = cut {
                    pipe.cut(cut.how, at);
                }
            }
        }
        count
    }
}

/// One end of a connection.
pub(crate) struct Socket {
    link: Arc<Link>,
    side: usize,
}

impl Socket {
    pub(super) fn client(link: &Arc<Link>) -> Self {
        Self { link: Arc::clone(link), side: CLIENT }
    }

    pub(super) fn server(link: &Arc<Link>) -> Self {
        Self { link: Arc::clone(link), side: SERVER }
    }

    fn end(&self, change: impl FnOnce(&mut End)) -> io::Result<()> {
        change(&mut self.link.pipe.lock().ends[self.side]);
        Ok(())
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.end(|end| end.read_timeout = timeout)
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.end(|end| end.write_timeout = timeout)
    }

    pub(crate) fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        self.end(|end| end.is_nonblocking = is_nonblocking)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as std's")]
    pub(crate) const fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40_000))
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut pipe = self.link.pipe.lock();
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            pipe.ends[self.side].shut_write = true;
            if pipe.cut.is_none() {
                let at = self.link.now() + self.link.weather.latency;
                pipe.finish(1 - self.side, at);
            }
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            pipe.ends[self.side].shut_read = true;
        }
        drop(pipe);
        self.link.changed.notify_all();
        Ok(())
    }

    /// Waits until `until` or for `patience`, whichever comes first. False: patience is over.
    fn wait(&self, pipe: &mut MutexGuard<'_, Pipe>, patience: Option<Instant>, until: Option<Instant>) -> bool {
        let far = self.link.now() + LONG;
        let wake = [patience, until].into_iter().flatten().min().unwrap_or(far);
        self.link.changed.wait_until(pipe, wake);
        patience.is_none_or(|patience| self.link.now() < patience)
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let started = self.link.now();
        let mut pipe = self.link.pipe.lock();
        let patience = pipe.ends[self.side].read_timeout.map(|timeout| started + timeout);
        loop {
            match pipe.arrived(self.side, self.link.now()) {
                Arrived::Bytes => break,
                Arrived::End => return Ok(0),
                Arrived::Reset => return Err(ErrorKind::ConnectionReset.into()),
                Arrived::Nothing(_) if pipe.ends[self.side].is_nonblocking => return Err(ErrorKind::WouldBlock.into()),
                Arrived::Nothing(until) => {
                    if !self.wait(&mut pipe, patience, until) {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                }
            }
        }
        let lane = &mut pipe.toward[self.side];
        let Some((_, bytes)) = lane.flight.front_mut() else { return Ok(0) };
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        bytes.drain(..count);
        if bytes.is_empty() {
            lane.flight.pop_front();
        }
        lane.unread -= count;
        drop(pipe);
        self.link.changed.notify_all();
        Ok(count)
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let started = self.link.now();
        let weather = match network().is_calm() {
            true => Weather { room: ROOM, cut: None, ..self.link.weather },
            false => self.link.weather,
        };
        let mut pipe = self.link.pipe.lock();
        let patience = pipe.ends[self.side].write_timeout.map(|timeout| started + timeout);
        if self.side == CLIENT {
            let taken = pipe.taken;
            pipe.offered.truncate(taken);
            pipe.offered.extend_from_slice(bytes);
        }
        let count = loop {
            let now = self.link.now();
            let was_reset = pipe.toward[self.side].reset.is_some_and(|at| at <= now);
            let end = &mut pipe.ends[self.side];
            if end.shut_write {
                return Err(ErrorKind::BrokenPipe.into());
            }
            if was_reset {
                let knows = std::mem::replace(&mut end.knows_of_reset, true);
                return Err(if knows { ErrorKind::BrokenPipe } else { ErrorKind::ConnectionReset }.into());
            }
            let count = self.link.carry(&mut pipe, self.side, bytes, weather);
            if count > 0 {
                break count;
            }
            let until = pipe.toward[self.side].reset;
            if pipe.ends[self.side].is_nonblocking || !self.wait(&mut pipe, patience, until) {
                return Err(ErrorKind::WouldBlock.into());
            }
        };
        drop(pipe);
        self.link.changed.notify_all();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let now = self.link.now();
        let mut pipe = self.link.pipe.lock();
        let other = 1 - self.side;
        let is_rude = pipe.ends[self.side].cuts || pipe.toward[self.side].unread > 0;
        pipe.ends[self.side].is_closed = true;
        if pipe.cut.is_none() {
            let at = now + self.link.weather.latency;
            match is_rude {
                true => pipe.reset(other, at),
                false => pipe.finish(other, at),
            }
        }
        drop(pipe);
        self.link.changed.notify_all();
        if self.side == CLIENT {
            network().note_closed(self.link.attempt, now);
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("side", &self.side).finish_non_exhaustive()
    }
}

/// Nothing is to be set.
pub(crate) fn prepare(_: &Socket, _: Duration) -> io::Result<()> {
    Ok(())
}

/// See `smtp/socket.rs`.
pub(crate) fn cut_on_drop(socket: &Socket, cuts: bool) {
    socket.link.pipe.lock().ends[socket.side].cuts = cuts;
}

/// Nobody delays acknowledgements here.
pub(crate) fn acknowledge(_: &Socket) {}

/// See `smtp/socket.rs`.
pub(crate) fn peek_without_waiting(socket: &Socket) -> io::Result<usize> {
    let mut pipe = socket.link.pipe.lock();
    match pipe.arrived(socket.side, socket.link.now()) {
        Arrived::Bytes => Ok(1),
        Arrived::End => Ok(0),
        Arrived::Reset => Err(ErrorKind::ConnectionReset.into()),
        Arrived::Nothing(_) => Err(ErrorKind::WouldBlock.into()),
    }
}
