//! How each type of setting is spelled in a file.

use std::net::IpAddr;
use std::time::Duration;

use lettre::transport::smtp::authentication::Mechanism;

use super::node::Node;
use crate::options::{AmbiguityBoundary, Backoff, KeepaliveCommand, OptionsError, Security, url};

/// What switches a setting off in every format: TOML has no null.
const OFF: &str = "off";

pub(super) trait Setting: Sized {
    /// What a value must be.
    fn rule() -> String;

    fn read(node: &Node) -> Option<Self>;

    fn write(&self) -> Node;
}

/// The value of `key`, which holds no secret.
pub(super) fn read<T: Setting>(key: &str, node: &Node) -> Result<T, OptionsError> {
    T::read(node).ok_or_else(|| OptionsError::new(key, node.shown(), T::rule()))
}

macro_rules! whole_numbers {
    ($($number:ty)*) => {
        $(
            impl Setting for $number {
                fn rule() -> String {
                    format!("must be a whole number from 0 to {}", Self::MAX)
                }

                fn read(node: &Node) -> Option<Self> {
                    match node {
                        Node::Integer(number) => Self::try_from(*number).ok(),
                        _ => None,
                    }
                }

                fn write(&self) -> Node {
                    Node::Integer(i128::try_from(*self).unwrap_or(i128::MAX))
                }
            }
        )*
    };
}

whole_numbers!(u16 u32 usize);

/// Words that stand for the variants of a choice.
macro_rules! words {
    ($($choice:ident { $($variant:ident = $word:literal),* $(,)? })*) => {
        $(
            impl Setting for $choice {
                fn rule() -> String {
                    format!("must be {}", [$(concat!("`", $word, "`")),*].join(" or "))
                }

                fn read(node: &Node) -> Option<Self> {
                    match node.text()? {
                        $($word => Some(Self::$variant),)*
                        _ => None,
                    }
                }

                fn write(&self) -> Node {
                    Node::from_text(match self {
                        $(Self::$variant => $word,)*
                    })
                }
            }
        )*
    };
}

words! {
    AmbiguityBoundary { LastByte = "last_byte", DataStarted = "data_started" }
    Backoff { Exponential = "exponential", Fixed = "fixed" }
    KeepaliveCommand { Rset = "rset", Noop = "noop" }
    Security {
        StartTls = "starttls",
        ImplicitTls = "implicit_tls",
        Plain = "plain",
        OpportunisticStartTls = "dangerous_opportunistic_starttls",
    }
}

impl Setting for bool {
    fn rule() -> String {
        "must be true or false".to_owned()
    }

    fn read(node: &Node) -> Option<Self> {
        match node {
            Node::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    fn write(&self) -> Node {
        Node::Flag(*self)
    }
}

impl Setting for f64 {
    fn rule() -> String {
        "must be a number".to_owned()
    }

    fn read(node: &Node) -> Option<Self> {
        match node {
            Node::Float(number) => Some(*number),
            Node::Integer(number) => i32::try_from(*number).ok().map(Self::from),
            _ => None,
        }
    }

    fn write(&self) -> Node {
        Node::Float(*self)
    }
}

impl Setting for String {
    fn rule() -> String {
        "must be text".to_owned()
    }

    fn read(node: &Node) -> Option<Self> {
        node.text().map(str::to_owned)
    }

    fn write(&self) -> Node {
        Node::from_text(self)
    }
}

impl Setting for IpAddr {
    fn rule() -> String {
        "must be an IP address".to_owned()
    }

    fn read(node: &Node) -> Option<Self> {
        node.text()?.parse().ok()
    }

    fn write(&self) -> Node {
        Node::from_text(self.to_string())
    }
}

impl Setting for Duration {
    fn rule() -> String {
        // No bare number: one writes seconds, and the next one reads milliseconds.
        "must be a duration with its units, such as \"15s\" or \"2m 30s\"".to_owned()
    }

    fn read(node: &Node) -> Option<Self> {
        let text = node.text()?;
        // humantime takes a bare zero.
        if text.trim() == "0" { None } else { humantime::parse_duration(text).ok() }
    }

    fn write(&self) -> Node {
        Node::from_text(humantime::format_duration(*self).to_string())
    }
}

/// A setting that can be switched off. Left out, it has its default, so null, which could mean either, is refused.
impl<T: Setting> Setting for Option<T> {
    fn rule() -> String {
        format!("{}, or \"{OFF}\"", T::rule())
    }

    fn read(node: &Node) -> Option<Self> {
        match node {
            // YAML 1.1, which some readers still follow, has `off` without quotes for false.
            Node::Flag(false) => Some(None),
            Node::Text(text) if **text == OFF => Some(None),
            _ => T::read(node).map(Some),
        }
    }

    fn write(&self) -> Node {
        self.as_ref().map_or_else(|| Node::from_text(OFF), T::write)
    }
}

impl Setting for Vec<Mechanism> {
    fn rule() -> String {
        "must be a list of `plain`, `login`, `xoauth2`".to_owned()
    }

    fn read(node: &Node) -> Option<Self> {
        let Node::List(names) = node else { return None };
        names.iter().map(|name| url::mechanism(name.text()?)).collect()
    }

    fn write(&self) -> Node {
        Node::List(self.iter().map(|mechanism| Node::from_text(mechanism.to_string().to_lowercase())).collect())
    }
}
