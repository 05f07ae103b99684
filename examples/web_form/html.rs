//! Pages out of parts: what is written in this program goes in as it is, and everything else is escaped. There is no third way.

use std::fmt::Write;

#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// For literals: nothing that was made at run time lives so long.
    pub fn raw(&mut self, literal: &'static str) {
        self.0.push_str(literal);
    }

    pub fn add(&mut self, part: impl Part) {
        part.add_to(self);
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// What may stand between literals.
pub trait Part {
    fn add_to(self, html: &mut Html);
}

impl Part for Html {
    fn add_to(self, html: &mut Html) {
        html.0.push_str(&self.0);
    }
}

impl Part for &str {
    fn add_to(self, html: &mut Html) {
        for character in self.chars() {
            match character {
                '&' => html.0.push_str("&amp;"),
                '<' => html.0.push_str("&lt;"),
                '>' => html.0.push_str("&gt;"),
                '"' => html.0.push_str("&quot;"),
                '\'' => html.0.push_str("&#39;"),
                _ => html.0.push(character),
            }
        }
    }
}

impl Part for &String {
    fn add_to(self, html: &mut Html) {
        html.add(&**self);
    }
}

impl Part for String {
    fn add_to(self, html: &mut Html) {
        html.add(&*self);
    }
}

impl<P: Part> Part for Option<P> {
    fn add_to(self, html: &mut Html) {
        if let Some(part) = self {
            html.add(part);
        }
    }
}

macro_rules! number {
    ($($type:ty),*) => {
        $(impl Part for $type {
            fn add_to(self, html: &mut Html) {
                let Ok(()) = write!(html.0, "{self}") else { unreachable!("a string takes everything") };
            }
        })*
    };
}

number!(u16, u32, u64, usize);

/// Literals, and values in parentheses.
macro_rules! html {
    ($($part:tt)*) => {{
        #[allow(unused_mut, reason = "it may be empty")]
        let mut html = $crate::html::Html::default();
        $($crate::html::part!(html, $part);)*
        html
    }};
}

macro_rules! part {
    ($html:ident, ($value:expr)) => {
        $html.add($value)
    };
    ($html:ident, $literal:literal) => {
        $html.raw($literal)
    };
}

pub(crate) use {html, part};
