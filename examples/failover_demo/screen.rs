//! The terminal: taken, drawn on, and given back whatever happens.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use console::Term;

use crate::frame;
use crate::ink::Line;
use crate::picture::Picture;

/// The alternate screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Whether the terminal has to be given back. There is one terminal.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

pub struct Screen {
    has_colours: bool,
}

impl Screen {
    pub fn enter() -> io::Result<Self> {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // On the alternate screen nobody could read it.
            leave();
            tell(panic);
        }));
        IS_TAKEN.store(true, Ordering::SeqCst);
        let screen = Self { has_colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
        write(ENTER)?;
        Ok(screen)
    }

    /// Draws over what is there, so that nothing flickers, in the size that the terminal has now.
    pub fn show(&self, picture: &Picture) -> io::Result<()> {
        if !IS_TAKEN.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (rows, columns) = Term::stdout().size();
        let lines = frame::lines(picture, columns.into(), rows.into());
        write(&drawing(&lines, self.has_colours))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// All that is written for a picture: each line in its place, and the rest of its row cleared. Between the first and the last
/// sequence, terminals that know them show nothing of it.
pub fn drawing(lines: &[Line], has_colours: bool) -> String {
    let mut text = String::from("\x1b[?2026h");
    for (row, line) in (1..).zip(lines) {
        let line = if has_colours { line.coloured() } else { line.plain() };
        // Cleared first: behind a line that fills the row the cursor still is on its last column.
        text += &format!("\x1b[{row};1H\x1b[2K{line}");
    }
    text + "\x1b[?2026l"
}

fn leave() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone needs nothing back.
        drop(write(LEAVE));
    }
}

/// In one write: there is no line end in it that would have standard output write a part.
fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
