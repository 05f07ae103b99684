//! What Postfix makes of the extensions that a message asks for.

use smtp_pool::{Dsn, DsnReturn, Notify, RecipientDsn, SendOptions};

use super::*;

/// Postfix itself writes the notification, and repeats in it what the envelope said.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_notification_of_success_repeats_what_was_asked_for() {
    const ID: &str = "order 4711+1=4712";
    let postfix = Postfix::start();
    let sender = single(postfix.host()).build().unwrap();
    let other = "other@example.com";
    let dsn = Dsn::new()
        .content(DsnReturn::Headers)
        .envelope_id(ID)
        .unwrap()
        .notify(Notify::SUCCESS | Notify::FAILURE)
        .recipient(
            USER.parse().unwrap(),
            RecipientDsn::new().original_recipient("the+list=all@lists.example.net").unwrap(),
        )
        .recipient(other.parse().unwrap(), RecipientDsn::new().notify(Notify::NEVER));
    let content = message("notify", "A body that is not returned.\r\n");
    sender.send_with(&to(&[USER, other]), &content, &SendOptions::new().dsn(dsn)).unwrap();

    let reports = || -> Vec<String> {
        let mail = postfix.mailbox().into_iter().map(|file| String::from_utf8_lossy(&file).into_owned());
        mail.filter(|text| text.contains("message/delivery-status")).collect()
    };
    wait_until("Postfix notifies the sender", || !reports().is_empty());
    let [report] = &reports()[..] else { panic!("one notification") };
    for line in [
        format!("Original-Envelope-Id: {ID}"),
        "Original-Recipient: rfc822;the+list=all@lists.example.net".to_owned(),
        format!("Final-Recipient: rfc822; {USER}"),
        "Message-ID: <notify>".to_owned(),
    ] {
        assert!(report.lines().any(|one| one == line), "{line:?} is not in\n{report}");
    }
    assert!(!report.contains(other), "{report}");
    assert!(!report.contains("A body that is not returned"), "{report}");
    assert_eq!(postfix.mailbox().len(), 3, "the message for each of its two recipients, and the notification");
}
