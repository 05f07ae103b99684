//! What a hostile server, a hostile message or somebody on the way can do: nothing that the catalogue's list (SEC) names.
//!
//! | rule | what shows it |
//! |---|---|
//! | SEC-01 a message stays one message | `smuggling::sec_01_nothing_is_smuggled_out_of_a_message`, `sec_01_nothing_is_smuggled_where_content_is_cut_into_writes`; the encoder alone, over all strings and all chunks: `src/smtp/body.rs`; against a Postfix that takes bare line ends: `real_postfix.rs`, `no_second_message_is_smuggled_in…` |
//! | SEC-02 dot-stuffing survives chunks | `smuggling::sec_02_stuffing_survives_the_edges_of_chunks`, `src/smtp/body.rs` |
//! | SEC-03 no line end in an address | `injection::sec_03_no_address_leaves_its_command`, `sec_03_nor_under_a_plain_r2d2_pool`, `sec_03_sec_04_no_setting_of_a_host_reaches_a_command_unchecked`, `sec_03_credentials_stay_inside_their_base64` |
//! | SEC-04 nor in the name of EHLO | `options.rs`, `a_hello_name_is_a_domain_or_an_address_literal`; by URL and under r2d2: `injection::sec_03_sec_04_…` |
//! | SEC-05 parameters | `injection::sec_05_parameters_are_numbers_and_words_of_ours`, `sec_05_a_size_is_that_of_the_normalised_content` |
//! | SEC-06 no character is cut to a byte | `injection::sec_06_no_character_is_cut_to_a_line_end`, `sec_06_nothing_is_cast_to_a_byte` |
//! | SEC-07 nothing comes along with the 220 | `starttls::sec_07_what_comes_along_with_the_220_refuses_the_connection`, `sec_07_what_comes_a_moment_later_breaks_the_handshake`, `p39_what_was_offered_before_tls_is_forgotten` |
//! | SEC-08 nothing is said before the handshake | `starttls::sec_08_the_first_bytes_behind_starttls_are_a_client_hello`, `sec_08_nothing_is_written_between_starttls_and_the_handshake` |
//! | SEC-09 STARTTLS taken out | `starttls::sec_09_sec_18_required_means_required`, `sec_09_opportunistic_goes_on_without_but_never_with_credentials` |
//! | SEC-10 certificates | `tls::sec_10_certificates_are_verified`, `sec_10_sec_24_the_name_in_the_certificate_is_the_one_that_was_asked_for`, `sec_10_the_chain_leads_to_a_trusted_root_over_authorities_alone`; `real_postfix.rs`, `a_server_with_another_certificate_gets_neither_password_nor_mail` |
//! | SEC-11 no password in the clear | `auth::sec_11_no_credentials_in_the_clear` |
//! | SEC-12 no secret is shown | all of `secrets.rs` |
//! | SEC-13 replies are shown without controls | `secrets.rs`, `control_codes_of_a_reply_are_not_shown`, `a_long_reply_is_cut_where_it_is_shown`; `src/reply.rs`, `a_shown_reply_cannot_steer_a_terminal` |
//! | SEC-14 no endless reply | `replies::sec_14_no_reply_is_endless`, `sec_14_large_replies_within_the_bounds_are_read`. What grows is measured as heap of the calling thread, because the resident size of a test process is also its neighbours' |
//! | SEC-15 slow drip | `deadline.rs`: each of `at_the_greeting_and_ehlo` … `at_the_final_reply` also against a server that drips |
//! | SEC-16 a peer that does not read | `deadline.rs`, `in_the_content` |
//! | SEC-17 bytes that are no reply | `replies::sec_17_nonsense_is_no_reply`, `sec_17_bytes_that_are_no_text` |
//! | SEC-18 no HELO | `starttls::sec_18_there_is_no_fall_back_to_helo` |
//! | SEC-19 mechanisms | `auth::sec_19_only_mechanisms_that_are_allowed` |
//! | SEC-20 endless 334 | `auth::sec_20_no_challenge_after_another` |
//! | SEC-21 one pool, one identity | `isolation::sec_21_…` (four, one of them with rotated credentials); `rotation.rs`, `rotation_under_load_begins_no_message_on_an_old_session` and the rest of it |
//! | SEC-22 secrets in memory | `isolation::sec_22_no_secret_stays_in_memory` (Linux), also of credentials that were rotated. Out of reach: the buffers of the TLS library and of the kernel, and strings of the caller's own |
//! | SEC-23 DNS that hangs | `src/smtp/resolve.rs`, `a_hanging_name_server_holds_nobody_past_the_deadline_and_piles_up_no_threads`; `isolation::sec_23_a_name_server_that_never_answers_costs_a_thread_for_each_host` (Linux, as root; otherwise it says that it did not run) |
//! | SEC-24 rebinding | `tls::sec_10_sec_24_…` |
//! | SEC-25 8-bit and UTF-8 | `replies::sec_25_what_is_not_offered_is_not_sent` |
//! | SEC-26 REQUIRETLS | not asked for by any option, so never said: `injection::sec_05_parameters_…` sends to a server that offers it |
//! | SEC-27 early replies | `replies::sec_27_a_reply_that_nobody_asked_for_is_not_taken_for_the_next_one`; new keys in mid-session: `fault_matrix/rekeyed.rs` |
//! | SEC-28 labels of metrics | there are no metrics yet; discards are counted by an enum, `DiscardReason` |
//! | SEC-29 numbers, unsafe code | `replies::sec_29_absurd_numbers_in_ehlo_are_no_limits`; `architecture.rs`, `nothing_is_unsafe`, over the lint `unsafe_code = "forbid"` |
//! | SEC-30 supply chain | `.ci/run`: `rust-version`, no async runtime, licences, crates.io alone. Advisories need a database from the network, so they are looked at for a release |

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

#[path = "../common/mod.rs"]
mod common;

mod auth;
mod injection;
mod isolation;
mod replies;
mod smuggling;
mod starttls;
mod tls;

use common::{contains, starttls as starttls_host};
use smtp_pool::testing::{Security, Stage, TestServer, TestServerBuilder};
use smtp_pool::{Host, SendError, SendStage};

fn with_secret(security: Security) -> TestServerBuilder {
    TestServer::builder().security(security).credentials("user", "secret").auth_before_tls(true)
}

fn secret_host(server: &TestServer) -> Host {
    starttls_host(server).credentials("user", "secret")
}

/// Neither credentials nor mail went anywhere, encrypted or not.
fn assert_nothing_given(server: &TestServer, error: &SendError) {
    assert!(error.stage() <= SendStage::Connected, "{error}");
    let seen = server.snapshot();
    for stage in [Stage::Auth, Stage::AuthStep, Stage::Mail, Stage::Rcpt, Stage::Data] {
        assert_eq!(seen.reached(stage), 0, "{stage:?} after {error}");
    }
    for connection in 1..=server.connections_accepted() {
        let bytes = server.transcript(connection).client_bytes();
        assert!(
            !contains(&bytes, b"AUTH") && !contains(&bytes, b"MAIL") && !contains(&bytes, b"HELO"),
            "{}",
            bytes.escape_ascii()
        );
    }
    assert!(server.messages().is_empty());
}
