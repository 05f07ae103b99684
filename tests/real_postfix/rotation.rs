//! Credentials that are rotated while mail goes to a real Postfix, whose log says as whom each message came.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use smtp_pool::{Credentials, DiscardReason, SmtpSender};

use super::postfix::{PASSWORD, Postfix};
use super::{inbox, message};

const THREADS: usize = 4;
const ROTATIONS: usize = 5;
const SENDS: usize = 300;

fn user(rotation: usize) -> String {
    format!("rotated{rotation}@example.com")
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_rotation_under_load_begins_no_message_on_an_old_session_of_postfix() {
    let names: Vec<_> = (0..=ROTATIONS).map(|rotation| format!("rotated{rotation}")).collect();
    let postfix = Postfix::start_for(&names.join(" "), "");
    let host = postfix.host().credentials(user(0), PASSWORD);
    let sender = SmtpSender::builder().host(host).max_size(3).max_retries(0).build().unwrap();
    // What was rotated to by a call that has returned.
    let published = AtomicUsize::new(0);
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sender, published, sent) = (&sender, &published, &sent);
            scope.spawn(move || {
                for number in 0..SENDS / THREADS {
                    let id = format!("{}.{thread}.{number}@rotation", published.load(SeqCst));
                    let receipt = sender.send_raw(&inbox(), &message(&id, b"body")).unwrap();
                    assert_eq!(receipt.attempts(), 1);
                    sent.fetch_add(1, SeqCst);
                }
            });
        }
        for rotation in 1..=ROTATIONS {
            super::wait_until("mail goes on", || sent.load(SeqCst) >= rotation * SENDS / (ROTATIONS + 1));
            sender.rotate_credentials("localhost", Credentials::new(user(rotation), PASSWORD)).unwrap();
            published.store(rotation, SeqCst);
        }
    });
    let mut seen = [0; ROTATIONS + 1];
    let users = postfix.users_of_messages();
    assert_eq!(users.len(), SENDS);
    for (id, user) in users {
        let oldest: usize = id.split('.').next().unwrap().parse().unwrap();
        let session = user.strip_prefix("rotated").unwrap().strip_suffix("@example.com").unwrap();
        let session: usize = session.parse().unwrap();
        assert!(session >= oldest, "{id} went over a session of {user}");
        seen[session] += 1;
    }
    assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
    assert!(sender.status().discarded.of(DiscardReason::CredentialsRotated) >= ROTATIONS as u64);
}
