//! The one error of `build()`.

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
        Self { option: option.into(), value: value.into(), rule: rule.into() }
    }

    /// The option's name, as its setter is called: `max_size`, `hosts[1].weight`.
    #[must_use]
    pub fn option(&self) -> &str {
        &self.option
    }

    /// The value that was given; never a secret.
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
