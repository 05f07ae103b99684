//! The one error of `build()`.

use crate::reply::is_harmless;

/// An option with a value that cannot be used.
///
/// `build()` reports the first one it meets; nothing is clamped and nothing panics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("option `{option}` is {value}: {rule}")]
pub struct OptionsError {
    option: String,
    value: String,
    rule: String,
}

impl OptionsError {
    pub(crate) fn new(option: impl Into<String>, value: impl Into<String>, rule: impl Into<String>) -> Self {
        // It comes from outside, perhaps percent-decoded from a URL, and the text of an error ends in a log.
        let mut value = value.into();
        if !value.chars().all(is_harmless) {
            value = value.escape_debug().to_string();
        }
        Self { option: option.into(), value, rule: rule.into() }
    }

    /// The same error, about an option at `place`: `weight` in `hosts[1]` is `hosts[1].weight`.
    pub(super) fn within(mut self, place: &str) -> Self {
        let dot = if self.option.is_empty() { "" } else { "." };
        self.option = format!("{place}{dot}{}", self.option);
        self
    }

    /// The option's name, as its setter is called: `max_size`, `hosts[1].weight`.
    #[must_use]
    pub fn option(&self) -> &str {
        &self.option
    }

    /// The value that was given, control characters escaped; never a secret.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The rule that it breaks.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }
}
