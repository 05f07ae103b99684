//! What the kernel, the network and the host can do to a sender: K01 to K30 of the fault catalogue.
//!
//! Each case below runs in a process of its own, most of them in a private network too (`world.rs`), because they drop packets, use
//! up ports and descriptors, and send signals. What a machine does not allow is reported as `NOT RUN`, never as passed;
//! `SMTP_POOL_REQUIRE_NAMESPACES=1` turns that into a failure.
//!
//! ```text
//! cargo test --test kernel_faults                       # all
//! cargo test --test kernel_faults -- K08                # by number, or by a part of the name
//! ```
//!
//! | fault | test |
//! |---|---|
//! | K01 port refused | [`a_refused_port_is_known_at_once`](opening::a_refused_port_is_known_at_once), [`every_address_of_a_name_is_tried`](opening::every_address_of_a_name_is_tried) |
//! | K02 SYN dropped | [`a_dropped_syn_ends_at_the_connect_timer`](opening::a_dropped_syn_ends_at_the_connect_timer) |
//! | K03 ICMP unreachable | [`an_unreachable_host_is_known_at_once`](opening::an_unreachable_host_is_known_at_once) |
//! | K04 backlog full | [`a_full_backlog_is_a_time_out`](opening::a_full_backlog_is_a_time_out) |
//! | K05 server stopped | [`a_stopped_server_costs_its_timer_and_no_more`](opening::a_stopped_server_costs_its_timer_and_no_more) |
//! | K06, K07 RST, FIN at each byte | `tests/cut_sweep/` |
//! | K08 black hole at each stage | [`a_black_hole_ends_each_stage_at_its_timer`](silence::a_black_hole_ends_each_stage_at_its_timer), [`a_black_hole_that_passes_in_time_costs_nothing`](silence::a_black_hole_that_passes_in_time_costs_nothing), [`the_kernel_gives_up_what_nobody_acknowledges`](silence::the_kernel_gives_up_what_nobody_acknowledges) |
//! | K09 zero window | [`a_window_that_stays_shut_ends_the_content`](silence::a_window_that_stays_shut_ends_the_content) |
//! | K10 zero window, dot sent | [`a_dot_in_the_send_queue_is_an_unknown_outcome`](silence::a_dot_in_the_send_queue_is_an_unknown_outcome) |
//! | K11 peer rebooted | [`a_rebooted_peer_costs_no_message`](silence::a_rebooted_peer_costs_no_message) |
//! | K12 smtpd killed | `tests/real_postfix.rs`: `a_crash_before_the_last_byte_is_safe_to_retry`, `a_crash_after_the_last_byte_leaves_the_outcome_unknown`, `what_a_send_says_agrees_with_what_was_queued` |
//! | K13 Postfix killed and restarted | `tests/real_postfix.rs`: `a_server_killed_whole_is_back_after_its_cooldown`, `a_restart_between_two_messages_goes_unnoticed` |
//! | K14 reload and stop under load | `tests/real_postfix.rs`: `a_reload_under_load_costs_no_message`, `a_stop_under_load_loses_nothing` |
//! | K15 queue disk full | `tests/real_postfix.rs`: `a_full_queue_disk_is_a_temporary_refusal` |
//! | K16 hard error limit | `tests/real_postfix.rs`: `a_session_ended_for_its_errors_is_replaced_for_free` |
//! | K17 connection count limit | `tests/real_postfix.rs`: `a_server_that_takes_two_connections_gets_two` |
//! | K18 no descriptors | [`without_descriptors_no_host_is_blamed`](shortage::without_descriptors_no_host_is_blamed), [`roots_that_could_not_be_read_are_read_later`](shortage::roots_that_could_not_be_read_are_read_later) |
//! | K19 no ports | [`without_ports_no_host_is_blamed`](shortage::without_ports_no_host_is_blamed) |
//! | K20 no threads | [`without_threads_build_says_so_and_sending_goes_on`](shortage::without_threads_build_says_so_and_sending_goes_on) |
//! | K21 DNS | [`names_that_do_not_resolve_are_bounded`](names::names_that_do_not_resolve_are_bounded), [`a_name_server_that_hangs_holds_nobody`](names::a_name_server_that_hangs_holds_nobody), [`fifty_addresses_share_one_timer`](names::fifty_addresses_share_one_timer), [`a_dead_ipv6_address_leaves_ipv4_its_time`](names::a_dead_ipv6_address_leaves_ipv4_its_time) |
//! | K22 TLS cut, certificate swapped | [`a_handshake_cut_by_rst_is_the_hosts_fault`](link::a_handshake_cut_by_rst_is_the_hosts_fault), [`a_swapped_certificate_is_refused`](link::a_swapped_certificate_is_refused) |
//! | K23 delay and jitter | [`jitter_costs_two_round_trips_a_message`](link::jitter_costs_two_round_trips_a_message), [`deadlines_hold_on_a_slow_link`](link::deadlines_hold_on_a_slow_link) |
//! | K24 split and merged segments | [`segments_of_one_byte_and_merged_replies_change_nothing`](link::segments_of_one_byte_and_merged_replies_change_nothing) |
//! | K25 signal storm | [`a_storm_of_signals_changes_nothing`](process::a_storm_of_signals_changes_nothing) |
//! | K26 wall clock set | [`a_wall_clock_that_is_set_changes_nothing`](process::a_wall_clock_that_is_set_changes_nothing) |
//! | K27 process suspended | [`a_process_that_was_suspended_goes_on`](process::a_process_that_was_suspended_goes_on) |
//! | K28 fork | [`no_child_inherits_a_connection`](process::no_child_inherits_a_connection) |
//! | K29 memory | [`a_hundred_megabytes_pass_in_constant_memory`](process::a_hundred_megabytes_pass_in_constant_memory) |
//! | K30 server flaps | `tests/flapping.rs` |
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_imports,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic and needs no manual"
)]

#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod harness;
#[cfg(target_os = "linux")]
mod judge;
#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
mod name_server;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod opening;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod role;
#[cfg(target_os = "linux")]
mod shortage;
#[cfg(target_os = "linux")]
mod silence;
#[cfg(target_os = "linux")]
mod world;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use harness::{Case, case};
    use world::World::{Faketime, Network, Own, Storm, Trusting, Unprivileged};

    let cases: &[Case] = &[
        case!("K01", Network, opening::a_refused_port_is_known_at_once),
        case!("K01", Network, opening::every_address_of_a_name_is_tried),
        case!("K02", Network, opening::a_dropped_syn_ends_at_the_connect_timer),
        case!("K03", Network, opening::an_unreachable_host_is_known_at_once),
        case!("K04", Own, opening::a_full_backlog_is_a_time_out),
        case!("K05", Own, opening::a_stopped_server_costs_its_timer_and_no_more),
        case!("K08", Network, silence::a_black_hole_ends_each_stage_at_its_timer),
        case!("K08", Network, silence::a_black_hole_that_passes_in_time_costs_nothing),
        case!("K08", Network, silence::the_kernel_gives_up_what_nobody_acknowledges),
        case!("K09", Own, silence::a_window_that_stays_shut_ends_the_content),
        case!("K10", Own, silence::a_dot_in_the_send_queue_is_an_unknown_outcome),
        case!("K11", Network, silence::a_rebooted_peer_costs_no_message),
        case!("K18", Own, shortage::without_descriptors_no_host_is_blamed),
        case!("K18", Trusting, shortage::roots_that_could_not_be_read_are_read_later),
        case!("K19", Network, shortage::without_ports_no_host_is_blamed),
        case!("K20", Unprivileged, shortage::without_threads_build_says_so_and_sending_goes_on),
        case!("K21", Network, names::names_that_do_not_resolve_are_bounded),
        case!("K21", Network, names::a_name_server_that_hangs_holds_nobody),
        case!("K21", Network, names::fifty_addresses_share_one_timer),
        case!("K21", Network, names::a_dead_ipv6_address_leaves_ipv4_its_time),
        case!("K22", Own, link::a_handshake_cut_by_rst_is_the_hosts_fault),
        case!("K22", Own, link::a_swapped_certificate_is_refused),
        case!("K23", Own, link::jitter_costs_two_round_trips_a_message),
        case!("K23", Own, link::deadlines_hold_on_a_slow_link),
        case!("K24", Own, link::segments_of_one_byte_and_merged_replies_change_nothing),
        case!("K25", Storm, process::a_storm_of_signals_changes_nothing),
        case!("K26", Faketime, process::a_wall_clock_that_is_set_changes_nothing),
        case!("K27", Own, process::a_process_that_was_suspended_goes_on),
        case!("K28", Own, process::no_child_inherits_a_connection),
        case!("K29", Own, process::a_hundred_megabytes_pass_in_constant_memory),
    ];
    harness::run(cases)
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("kernel faults: NOT RUN: they are made with Linux's own means");
}
