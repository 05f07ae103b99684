//! A picture as text: lines that fit the terminal, whatever its size. Pure.

use std::time::Duration;

use crate::diary::Entry;
use crate::ink::{Ink, Line};
use crate::picture::{HostPicture, Picture, Server, State};
use crate::stage::NAMES;

/// How wide the names of hosts are, margin included.
const NAME: usize = 13;
/// What a full cooldown bar stands for: the longest cooldown of this play, and its cells.
const FULL_BAR: Duration = Duration::from_secs(2);
const BAR_CELLS: usize = 10;
/// Eighths of a cell, from below.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const INKS: [Ink; 2] = [Ink::Green, Ink::Cyan];

/// As many lines as the terminal is high, of at most `width` columns each.
pub fn lines(picture: &Picture, width: usize, height: usize) -> Vec<Line> {
    let mut lines = Vec::with_capacity(height);
    lines.push(title(picture, width));
    lines.push(Line::new(width).ink(Ink::Dim, &"─".repeat(width)));
    lines.push(
        Line::new(width)
            .ink(Ink::Dim, "  HOST       THE POOL SAYS")
            .right(Ink::Dim, "IDLE  LEASED  OPENING   SENDS/S "),
    );
    for host in &picture.hosts {
        lines.extend(host_lines(host, width));
    }
    lines.push(Line::new(width));
    lines.push(connections(picture, width));
    lines.push(Line::new(width));
    lines.extend(charts(picture, width, if height < 32 { 2 } else { 4 }));
    lines.push(Line::new(width));
    lines.push(totals(picture, width));
    lines.push(Line::new(width));
    lines.push(Line::new(width).ink(Ink::Dim, "  WHAT HAPPENED LAST"));
    let left = height.saturating_sub(lines.len());
    lines.extend(picture.entries.iter().take(left).map(|entry| entry_line(entry, width)));
    lines.resize(height, Line::new(width));
    lines
}

/// The same in one line, for those who do not watch.
pub fn line(picture: &Picture) -> String {
    let mut text = format!("{:>5.1} s  {:>5} sent", picture.at.as_secs_f64(), picture.sent);
    for host in &picture.hosts {
        let HostPicture { name, idle, leased, connecting, last_second, .. } = host;
        let state = state(host.state).1;
        text += &format!(" | {name} {last_second:>3}/s, {state}, {idle} idle {leased} leased {connecting} opening");
    }
    text
}

fn title(picture: &Picture, width: usize) -> Line {
    let seconds = picture.at.as_secs();
    Line::new(width)
        .ink(Ink::Bold, "  smtp-pool")
        .ink(Ink::Plain, "  two servers, one of which comes and goes")
        .right(Ink::Dim, &format!("{}:{:02}  Ctrl-C ends ", seconds / 60, seconds % 60))
}

fn host_lines(host: &HostPicture, width: usize) -> [Line; 2] {
    let (ink, words) = state(host.state);
    let HostPicture { idle, leased, connecting, last_second, .. } = host;
    let mut first = Line::new(width)
        .ink(ink, "● ")
        .ink(Ink::Bold, &format!("{:<width$}", host.name, width = NAME - 2))
        .ink(ink, &words);
    if let State::CoolingDown(left) = host.state {
        let cells = share(left, FULL_BAR, BAR_CELLS);
        first = first.ink(ink, &format!("  {}", "━".repeat(cells))).ink(Ink::Dim, &"━".repeat(BAR_CELLS - cells));
    }
    let first = first.right(Ink::Plain, &format!("{idle:>4}  {leased:>6}  {connecting:>7}   {last_second:>7} "));

    let (ink, server) = match host.server {
        Server::Up(None) => (Ink::Dim, "up".to_owned()),
        Server::Up(Some(left)) => (Ink::Dim, format!("up, goes down in {}", tenths(left))),
        Server::Down(left) => (Ink::Red, format!("down, back in {}", tenths(left))),
    };
    let mut second = Line::new(width).ink(Ink::Dim, &format!("  {}  ", host.address)).ink(ink, &server);
    if let Some(error) = &host.last_error {
        second = second.ink(Ink::Red, &format!("  {error}"));
    }
    [first, second]
}

fn state(state: State) -> (Ink, String) {
    match state {
        State::Available => (Ink::Green, "available".to_owned()),
        State::CoolingDown(left) => (Ink::Yellow, format!("cooling down {}", tenths(left))),
        State::Probing => (Ink::Yellow, "one caller tries it".to_owned()),
    }
}

fn connections(picture: &Picture, width: usize) -> Line {
    let counts = picture.counts;
    let free = counts.max_size.saturating_sub(counts.total);
    Line::new(width)
        .ink(Ink::Dim, "  CONNECTIONS  ")
        .ink(Ink::Green, &"■".repeat(counts.leased))
        .ink(Ink::Yellow, &"■".repeat(counts.connecting))
        .ink(Ink::Plain, &"□".repeat(counts.idle))
        .ink(Ink::Dim, &"·".repeat(free))
        .ink(Ink::Plain, &format!("  {} of {}", counts.total, counts.max_size))
        .ink(
            Ink::Dim,
            &format!(
                ": {} leased, {} opening, {} idle; {} waiting",
                counts.leased, counts.connecting, counts.idle, counts.waiting
            ),
        )
}

/// A curve for each host, on one scale, `rows` tall.
fn charts(picture: &Picture, width: usize, rows: usize) -> Vec<Line> {
    let bars = width.saturating_sub(NAME + 2);
    let newest = |host: &HostPicture| host.curve[host.curve.len().saturating_sub(bars)..].to_vec();
    let curves = [newest(&picture.hosts[0]), newest(&picture.hosts[1])];
    let peak = curves.iter().flatten().copied().max().unwrap_or(0);

    let mut lines = vec![
        Line::new(width)
            .ink(Ink::Dim, "  SENDS A SECOND")
            .right(Ink::Dim, &format!("a bar is half a second, the tallest {peak}/s ")),
    ];
    for ((host, curve), ink) in picture.hosts.iter().zip(&curves).zip(INKS) {
        for row in (0..rows).rev() {
            let name = if row == 0 { host.name } else { "" };
            let mut line = Line::new(width).ink(Ink::Plain, &format!("  {name:<width$}", width = NAME - 2));
            for value in curve {
                line = match cell(*value, peak, rows, row) {
                    ' ' if row == 0 => line.ink(Ink::Dim, "·"),
                    cell => line.ink(ink, cell.encode_utf8(&mut [0; 4])),
                };
            }
            lines.push(line);
        }
    }
    lines
}

/// What a bar of that value shows in the row, counted from below.
fn cell(value: u64, peak: u64, rows: usize, row: usize) -> char {
    if value == 0 || peak == 0 {
        return ' ';
    }
    let full = rows as u64 * 8;
    // A bar that is not zero is seen.
    let eighths = (value * full).div_ceil(peak).min(full);
    let here = eighths.saturating_sub(row as u64 * 8).min(8);
    EIGHTHS[usize::try_from(here).unwrap_or(8)]
}

fn totals(picture: &Picture, width: usize) -> Line {
    let alarm = |count: u64| if count == 0 { Ink::Dim } else { Ink::Red };
    Line::new(width)
        .ink(Ink::Bold, &format!("  {} sent", picture.sent))
        .ink(Ink::Plain, &format!("   {} tried again", picture.retries))
        .ink(alarm(picture.failed), &format!("   {} failed", picture.failed))
        .ink(alarm(picture.unknown), &format!("   {} in doubt", picture.unknown))
        .ink(Ink::Dim, &format!("   {} opened, {} closed", picture.opened, picture.closed))
}

fn entry_line(entry: &Entry, width: usize) -> Line {
    let times = if entry.times > 1 { format!("  ×{}", entry.times) } else { String::new() };
    Line::new(width)
        .ink(Ink::Dim, &format!("  {:>7}  ", tenths(entry.at)))
        .ink(INKS[entry.host], &format!("{:<NAME$}", NAMES[entry.host]))
        .ink(Ink::Plain, &entry.text)
        .ink(Ink::Dim, &times)
}

fn tenths(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// So many of `cells` as `part` is of `whole`, rounded up.
fn share(part: Duration, whole: Duration, cells: usize) -> usize {
    let cells_of = part.as_millis() * cells as u128;
    usize::try_from(cells_of.div_ceil(whole.as_millis())).unwrap_or(cells).min(cells)
}
