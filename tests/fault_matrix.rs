//! The catalogue of faults, row by row: each is played by a scripted server, and what the caller is told, what becomes of
//! the connection and of the host, and how often the message was accepted are compared with what the catalogue says.
//!
//! Each part has a process of its own without the system's root certificates, which take longer to read than a row takes.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;
#[path = "fault_matrix/mod.rs"]
mod fault_matrix;

use common::without_system_roots;
use fault_matrix::{chunking, crowd, data, end_of_data, envelope, harness, idle, opening, rekeyed};

#[test]
fn a_fault_while_a_session_is_opened_never_costs_a_message_and_is_blamed_on_the_right_party() {
    without_system_roots(
        "a_fault_while_a_session_is_opened_never_costs_a_message_and_is_blamed_on_the_right_party",
        || harness::run(opening::rows()),
    );
}

#[test]
fn a_connection_that_ended_while_it_was_idle_is_replaced_free_of_charge() {
    without_system_roots("a_connection_that_ended_while_it_was_idle_is_replaced_free_of_charge", || {
        harness::run(idle::rows());
    });
}

#[test]
fn a_fault_in_the_envelope_is_never_ambiguous() {
    without_system_roots("a_fault_in_the_envelope_is_never_ambiguous", || harness::run(envelope::rows()));
}

#[test]
fn a_fault_in_the_content_is_never_ambiguous() {
    without_system_roots("a_fault_in_the_content_is_never_ambiguous", || harness::run(data::rows()));
}

#[test]
fn after_the_last_byte_only_a_decisive_answer_decides_and_nothing_is_sent_twice() {
    without_system_roots("after_the_last_byte_only_a_decisive_answer_decides_and_nothing_is_sent_twice", || {
        harness::run(end_of_data::rows());
    });
}

#[test]
fn in_one_write_only_a_refusal_in_step_decides_and_a_server_that_gets_it_wrong_is_asked_for_data() {
    without_system_roots(
        "in_one_write_only_a_refusal_in_step_decides_and_a_server_that_gets_it_wrong_is_asked_for_data",
        || harness::run(chunking::rows()),
    );
}

#[test]
fn f005_a_host_that_takes_no_more_connections_is_waited_for_while_one_lives() {
    crowd::greeting_421_with_a_live_connection();
}

#[test]
fn f031_a_host_that_takes_no_more_logins_is_waited_for_while_one_lives() {
    crowd::refused_login_with_a_live_connection();
}

#[test]
fn f036_new_keys_on_an_idle_tls_connection_are_no_reason_to_give_it_up() {
    rekeyed::keys_change_while_idle();
}

#[test]
fn y1_a_corrupted_dialogue_is_retried_once_and_not_more_often() {
    crowd::corruption_is_retried_once();
}

#[test]
fn idle_connections_are_given_up_with_a_sibling_that_died() {
    crowd::idle_siblings_go_with_a_dead_connection();
}
