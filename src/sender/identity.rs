//! Other credentials without another sender.

use crate::endpoint::{Endpoint, HostId};
use crate::options::{Credentials, OptionsError};

use super::{Inner, SmtpSender};

impl SmtpSender {
    /// Replaces the credentials of a host: those of [`Host::credentials`](crate::Host::credentials), or of the rotation before.
    ///
    /// `host` is its name, or `name:port`; with the name alone, all entries of that name are meant. No mail is lost or refused for it:
    ///
    /// - **No message begins on an old session once this has returned.** Idle sessions of the host end at once (with QUIT, and
    ///   [`CredentialsRotated`](crate::DiscardReason::CredentialsRotated)). One that carries a message finishes it, and ends then.
    ///   One that is being opened, or asked for a sign of life, ends when that is over.
    /// - A send that has its session and has not begun gets another one instead, within the same `acquire_timeout` and without using
    ///   up a retry. A [`Lease`](crate::Lease) in an expert's hands is refused its next message
    ///   ([`RetryableBeforeSend`](crate::FailureKind::RetryableBeforeSend)).
    /// - A host that pauses because its credentials were refused is tried again at once. What the old ones are refused from now on is
    ///   not held against it.
    ///
    /// Does no I/O but those QUITs, and waits for nobody. Where the server takes the old ones no longer, rotate first and revoke then:
    /// a message that is under way needs its session until it is done.
    ///
    /// ```
    /// use smtp_pool::{Credentials, Host, SmtpSender};
    ///
    /// let sender = SmtpSender::builder()
    ///     .host(Host::starttls("smtp.example.com").credentials("shop", "old password"))
    ///     .build()?;
    /// // Later, from any thread:
    /// sender.rotate_credentials("smtp.example.com", Credentials::new("shop", "new password"))?;
    /// # Ok::<(), smtp_pool::OptionsError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`OptionsError`], and nothing has changed: no such host, one without credentials or with a supplier, or credentials that hold
    /// NUL or U+0001.
    pub fn rotate_credentials(&self, host: &str, credentials: Credentials) -> Result<(), OptionsError> {
        let Inner { pool, .. } = &*self.inner;
        let hosts = self.hosts_called(host)?;
        for &id in &hosts {
            pool.connector().opener(id).check_rotation(&credentials)?;
        }
        for &id in &hosts {
            pool.connector().opener(id).rotate_credentials(credentials.clone());
            // Whatever is opened from here on has the new ones.
            pool.rotate_credentials(id);
        }
        Ok(())
    }

    /// Ends every session of a host as [`rotate_credentials`](Self::rotate_credentials) does, and has those that come after log in
    /// anew: by another call of [`Host::credentials_with`](crate::Host::credentials_with)'s supplier, or with the same fixed
    /// credentials. A call that is under way serves nobody who comes later.
    ///
    /// For tokens that were revoked, or whose rights have changed. Those that merely expire need nothing: each new connection asks the
    /// supplier, and servers let a session live on.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] if there is no such host.
    pub fn refresh_credentials(&self, host: &str) -> Result<(), OptionsError> {
        let Inner { pool, .. } = &*self.inner;
        for id in self.hosts_called(host)? {
            pool.connector().opener(id).forget_credentials();
            pool.rotate_credentials(id);
        }
        Ok(())
    }

    fn hosts_called(&self, host: &str) -> Result<Vec<HostId>, OptionsError> {
        let ids = (0..self.inner.options.hosts.len()).map(HostId);
        let hosts: Vec<_> = ids.filter(|&id| is_called(self.inner.pool.connector().endpoint(id), host)).collect();
        if hosts.is_empty() {
            return Err(OptionsError::new("host", host, "must be the name, or name:port, of a host of this sender"));
        }
        Ok(hosts)
    }
}

/// Whether `host` names it, with or without its port.
fn is_called(endpoint: &Endpoint, host: &str) -> bool {
    let bare = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    bare(endpoint.name()) == bare(host) || endpoint.to_string().eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_called_by_its_name_with_or_without_its_port() {
        let mail = Endpoint::new("Mail.example", 587);
        for host in ["mail.example", "MAIL.EXAMPLE.", "mail.example:587"] {
            assert!(is_called(&mail, host), "{host}");
        }
        for host in ["mail.example:25", "mail", "example", ""] {
            assert!(!is_called(&mail, host), "{host}");
        }
        let v6 = Endpoint::new("::1", 25);
        assert!(is_called(&v6, "::1") && is_called(&v6, "[::1]:25") && !is_called(&v6, "::1:25"));
    }
}
