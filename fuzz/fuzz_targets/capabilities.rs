//! Whatever a server says to EHLO: reading its offers never panics, and finds what a naive reading finds.
//!
//! Input: the lines of the reply, without code and line end, separated by LF.
#![no_main]

use lettre::transport::smtp::authentication::Mechanism;
use libfuzzer_sys::fuzz_target;
use smtp_pool::fuzzing::{capabilities, read_replies};

fuzz_target!(|input: &[u8]| {
    let mut lines: Vec<&[u8]> = input.split(|&byte| byte == b'\n').collect();
    let last = lines.pop().unwrap_or_default();
    let mut wire: Vec<u8> = lines.iter().flat_map(|line| [b"250-", *line, b"\r\n"].concat()).collect();
    wire.extend([b"250 ", last, b"\r\n"].concat());
    let naive::First::Complete(expected, _) = naive::first_reply(&wire) else { return };
    let (replies, _, _) = read_replies(&[&wire]);

    let offered = capabilities(&replies[0]);
    let auth = offered.auth.iter().map(|mechanism| match mechanism {
        Mechanism::Plain => "PLAIN",
        Mechanism::Login => "LOGIN",
        Mechanism::Xoauth2 => "XOAUTH2",
    });
    let offered = naive::Offered {
        pipelining: offered.pipelining,
        chunking: offered.chunking,
        size: offered.size,
        size_limit: offered.size_limit,
        eight_bit_mime: offered.eight_bit_mime,
        smtp_utf8: offered.smtp_utf8,
        dsn: offered.dsn,
        starttls: offered.starttls,
        auth: auth.collect(),
        mail_max: offered.mail_max,
        rcpt_max: offered.rcpt_max,
    };
    assert_eq!(offered, naive::offered(&expected));
});
