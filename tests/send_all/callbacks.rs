//! What a progress callback may do.

use super::*;

#[test]
fn a_callback_that_panics_loses_nothing() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(4).build().unwrap();
    let outbox = Outbox::of(50);
    let mut calls = 0;
    let outcomes = sender.send_all_with(outbox.messages(), &BatchOptions::new(), |progress| {
        calls += 1;
        assert!(progress.done() < 5, "the callback of this test panics here, on purpose");
    });
    assert_eq!((kinds(&outcomes), calls), (vec![None; 50], 5));
    assert_true(&server, &outcomes);
    assert!(is_at_rest(&sender));
}

/// Nothing is held while a callback runs: neither a connection nor anything that another batch needs.
#[test]
fn a_callback_may_send_a_batch_of_its_own_over_the_same_sender() {
    for connections in [1, 4] {
        let server = TestServer::start();
        let sender = sender(plain(&server)).max_size(connections).build().unwrap();
        let outer = Outbox::of(20);
        let inner: Vec<_> = (0..5).map(|index| (envelope(1), content(&format!("{index}@inner")))).collect();
        let mut of_inner = Vec::new();
        let outcomes = sender.send_all_with(outer.messages(), &BatchOptions::new(), |progress| {
            if progress.done() == 3 {
                let messages = inner.iter().map(|(envelope, content)| (envelope, &content[..]));
                of_inner = sender.send_all(messages, &BatchOptions::new());
            }
        });
        assert_true(&server, &outcomes);
        assert_eq!((kinds(&outcomes), kinds(&of_inner)), (vec![None; 20], vec![None; 5]));
        assert!((0..5).all(|index| server.accepted(&format!("{index}@inner")) == 1));
        assert!(server.peak_connections() <= connections);
    }
}

#[test]
fn a_callback_may_end_its_batch() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    let token = CancelToken::new();
    let options = BatchOptions::new().parallelism(1).send_options(SendOptions::new().cancel(&token));
    let outbox = Outbox::of(20);
    let outcomes = sender.send_all_with(outbox.messages(), &options, |progress| {
        if progress.done() == 3 {
            token.cancel();
        }
    });
    assert_eq!(kinds(&outcomes), [vec![None; 3], vec![Some(FailureKind::Cancelled); 17]].concat());
    assert_true(&server, &outcomes);
}

#[test]
fn a_callback_may_shut_the_sender_down() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(4).build().unwrap();
    let outbox = Outbox::of(100);
    let mut in_time = None;
    let outcomes = sender.send_all_with(outbox.messages(), &BatchOptions::new(), |progress| {
        if progress.done() == 10 {
            in_time = Some(sender.shutdown(PATIENCE));
        }
    });
    assert_eq!(in_time, Some(true), "whoever waits for the callback has nothing under way");
    assert_true(&server, &outcomes);
    let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!((10..=14).contains(&accepted), "what was under way on four connections ended well: {accepted}");
    let others = kinds(&outcomes).into_iter().flatten();
    assert!(others.into_iter().all(|kind| kind == FailureKind::Shutdown));
}
