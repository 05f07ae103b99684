//! A user name with its password or token, and where they come from.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use lettre::transport::smtp::authentication::{Credentials as LettreCredentials, Mechanism};
use zeroize::Zeroizing;

use super::OptionsError;

/// A user name and its password; for XOAUTH2, its bearer token.
///
/// Kept out of `Debug`, and overwritten in memory when dropped. Copies that were made on the way here (the string that a token was read
/// into, if it was not moved in) are their makers' own.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl Credentials {
    /// The credentials of `user`. Strings that are moved in are not copied.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Zeroizing::new(user.into()), password: Zeroizing::new(password.into()) }
    }

    /// The user name.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// The password, or the bearer token.
    pub(crate) fn expose(&self) -> &str {
        &self.password
    }

    /// Whether no mechanism would read them as something else.
    // RFC 4616 §2: NUL separates the parts of PLAIN. For XOAUTH2 the separator is ^A.
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        if [self.user(), self.expose()].iter().any(|part| part.contains(['\0', '\x01'])) {
            return Err(OptionsError::new("credentials", "not shown", "must hold neither NUL nor U+0001"));
        }
        Ok(())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(redacted)")
    }
}

/// Those of the other crate, which does not overwrite its own.
impl From<LettreCredentials> for Credentials {
    fn from(credentials: LettreCredentials) -> Self {
        // They are told to nobody but a mechanism: for PLAIN, NUL user NUL password.
        let told = Mechanism::Plain.response(&credentials, None).map(Zeroizing::new).unwrap_or_default();
        let (user, password) = told.strip_prefix('\0').and_then(|told| told.split_once('\0')).unwrap_or_default();
        Self::new(user, password)
    }
}

/// Why there are no credentials, in the program's own words.
type SupplierError = Box<dyn StdError + Send + Sync>;

/// What the program supplies credentials with. Two are equal when they are the same one.
#[derive(Clone)]
pub(crate) struct Supplier(Arc<dyn Fn() -> Result<Credentials, SupplierError> + Send + Sync>);

impl Supplier {
    pub(crate) fn new(supply: impl Fn() -> Result<Credentials, SupplierError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(supply))
    }

    /// Runs the program's code, which may take as long as it likes, and panic.
    pub(crate) fn call(&self) -> Result<Credentials, SupplierError> {
        (self.0)()
    }
}

impl PartialEq for Supplier {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Supplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Supplier")
    }
}

/// Where a host's credentials come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Login {
    /// These, until they are rotated.
    Fixed(Credentials),
    /// Asked for whenever a connection is opened.
    Supplied(Supplier),
}

impl Login {
    /// Leaves no secret behind, and what is left looks the same to whoever shows it.
    pub(crate) fn take(&mut self) -> Self {
        match self {
            Self::Fixed(credentials) => Self::Fixed(std::mem::replace(credentials, Credentials::new("", ""))),
            Self::Supplied(supplier) => Self::Supplied(supplier.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_lettre_are_the_same_credentials() {
        for (user, password) in [("user", "secret"), ("a b@c", "p:ä\n\"x"), ("", "only"), ("only", "")] {
            let theirs = LettreCredentials::new(user.to_owned(), password.to_owned());
            assert_eq!(Credentials::from(theirs), Credentials::new(user, password), "{user}");
        }
    }

    #[test]
    fn what_is_left_of_a_login_shows_as_before_and_holds_nothing() {
        let mut fixed = Login::Fixed(Credentials::new("user", "secret"));
        let before = format!("{fixed:?}");
        let taken = fixed.take();
        assert_eq!((taken, format!("{fixed:?}")), (Login::Fixed(Credentials::new("user", "secret")), before));
        assert_eq!(fixed, Login::Fixed(Credentials::new("", "")));
    }

    #[test]
    fn a_supplier_is_equal_to_itself_alone() {
        let supplier = || Supplier::new(|| Ok(Credentials::new("user", "token")));
        let one = supplier();
        assert_eq!(one, one.clone());
        assert_ne!(one, supplier());
        assert_eq!(format!("{one:?}"), "Supplier");
    }
}
