//! Lines that know how wide they are. Every character used here has one column.

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Ink {
    /// The parameter of SGR (ECMA-48 §8.3.117).
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Cyan => "36",
        }
    }
}

/// A line of a given width at most; what goes beyond is cut.
#[derive(Debug, Clone)]
pub struct Line {
    pieces: Vec<(Ink, String)>,
    used: usize,
    width: usize,
}

impl Line {
    pub const fn new(width: usize) -> Self {
        Self { pieces: Vec::new(), used: 0, width }
    }

    /// Adds a piece. A control character, which would move the cursor, becomes a question mark.
    pub fn ink(mut self, ink: Ink, text: &str) -> Self {
        let piece: String = text
            .chars()
            .take(self.width - self.used)
            .map(|character| if character.is_control() { '?' } else { character })
            .collect();
        if piece.is_empty() {
            return self;
        }
        self.used += piece.chars().count();
        match self.pieces.last_mut() {
            Some((last, pieces)) if *last == ink => pieces.push_str(&piece),
            _ => self.pieces.push((ink, piece)),
        }
        self
    }

    /// Adds a piece that ends at the right edge, if there is room for all of it.
    pub fn right(self, ink: Ink, text: &str) -> Self {
        let Some(gap) = (self.width - self.used).checked_sub(text.chars().count()).filter(|gap| *gap > 0) else {
            return self;
        };
        self.ink(Ink::Plain, &" ".repeat(gap)).ink(ink, text)
    }

    pub fn plain(&self) -> String {
        self.pieces.iter().map(|(_, text)| text.as_str()).collect()
    }

    pub fn coloured(&self) -> String {
        let mut text = String::new();
        for (ink, piece) in &self.pieces {
            match ink.code() {
                "" => text += piece,
                code => text += &format!("\x1b[{code}m{piece}\x1b[0m"),
            }
        }
        text
    }
}
