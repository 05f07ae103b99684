//! Whatever text is given as a host's URL: reading and checking it never panics; what passes both holds no control character where it
//! will be spoken or shown; what does not is told in an error that can be logged, without the password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_pool::{Host, OptionsError, SmtpConnectionManager};

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// What stands between the first colon behind the slashes and the last @, if it is long enough not to stand elsewhere by chance.
fn password(url: &str) -> Option<&str> {
    let (scheme, behind) = url.split_once("://")?;
    let (user_and_password, host) = behind.rsplit_once('@')?;
    let (user, password) = user_and_password.split_once(':')?;
    let scheme = scheme.to_ascii_lowercase() + "://";
    let is_telling = password.len() >= 6 && ![&scheme, user, host].iter().any(|other| other.contains(password));
    is_telling.then_some(password)
}

fn judge(url: &str, error: &OptionsError) {
    // The rule is the crate's own words, which somebody may have for a password.
    let text = format!("{error} {error:?}").replace(error.rule(), "");
    assert!(is_printable(&error.to_string()), "{error:?}");
    if let Some(password) = password(url) {
        assert!(!text.contains(password), "{error:?} shows the password");
    }
}

fuzz_target!(|url: &str| {
    let host: Host = match url.parse() {
        Ok(host) => host,
        Err(error) => return judge(url, &error),
    };
    let shown = format!("{host:?}");
    assert!(is_printable(&shown), "{shown}");
    match SmtpConnectionManager::new(host.clone()) {
        Ok(manager) => {
            assert_eq!(url.parse::<Host>().as_ref(), Ok(&host), "what is read is read the same again");
            let shown = format!("{manager:?}");
            // As `Debug` writes a string that had one.
            assert!(!shown.contains("\\u{") && !shown.contains("\\n") && !shown.contains("\\r"), "{shown}");
            if let Some(password) = password(url) {
                assert!(!shown.contains(password), "{shown}");
            }
        }
        Err(error) => judge(url, &error),
    }
});
