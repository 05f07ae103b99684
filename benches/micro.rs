//! The parts that every message passes, each by itself: criterion's micro-measurements.
//!
//! ```text
//! cargo bench --bench micro                  # all of them
//! cargo bench --bench micro -- content       # those whose name holds this
//! ```
//!
//! Times here are of one machine at one moment and promise nothing; they are for comparing two states of the code on the same
//! machine, which criterion does by itself from run to run. What is promised is measured by `cargo bench --bench peers`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a bench may panic and needs no manual")]

// The files of the crate itself, by path: no public door leads to them. They find each other by the names they have in the crate.
#[path = "../src/smtp/body.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod body;
#[path = "../src/smtp/capabilities.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod capabilities;
#[path = "../src/event.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod event;
#[path = "peers/mail.rs"]
#[allow(dead_code, reason = "a bench uses its own part")]
mod mail;
#[path = "../src/reply.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod reply;
#[path = "../src/smtp/reply_reader.rs"]
#[allow(dead_code, unused_imports, reason = "a bench uses its own part, and none of the tests")]
mod reply_reader;

use std::hint::black_box;

use body::BodyEncoder;
use capabilities::Capabilities;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use reply_reader::ReplyReader;

/// The size of the pieces in which content leaves.
const CHUNK: usize = 64 * 1024;
const LARGE: usize = 1_000_000;

/// Content as it comes, and as it is hard on an encoder.
fn contents() -> Vec<(&'static str, Vec<u8>)> {
    let lines = |line: &[u8]| line.iter().cycle().take(LARGE).copied().collect::<Vec<u8>>();
    vec![
        ("700 B of text", mail::content(700)),
        ("base64", mail::base64_content(LARGE)),
        ("text", mail::content(LARGE)),
        ("one line without an end", vec![b'x'; LARGE]),
        ("short lines", lines(b"short\r\n")),
        ("bare line feeds", lines(b"A line that ends as Unix has it.\n")),
        ("a dot at the start of each line", lines(b".A line that begins with a dot.\r\n")),
        ("nothing but dots and line ends", lines(b".\r\n")),
    ]
}

fn content(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("content");
    let mut out = Vec::with_capacity(CHUNK + 8);
    for (name, content) in contents() {
        group.throughput(Throughput::Bytes(content.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &content, |bencher, content| {
            bencher.iter(|| {
                let mut encoder = BodyEncoder::new(black_box(content.as_slice()).into());
                loop {
                    out.clear();
                    let is_done = encoder.fill(&mut out, CHUNK);
                    black_box(&out);
                    if is_done {
                        break;
                    }
                }
            });
        });
    }
    group.finish();
}

/// Replies as servers send them, and how many of them there are in each.
fn replies() -> Vec<(&'static str, Vec<u8>, usize)> {
    let group = b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n";
    vec![
        ("one", b"250 2.0.0 Ok: queued as 4XyZ1234567890\r\n".to_vec(), 1),
        ("an envelope's three", group.to_vec(), 3),
        ("fifty recipients'", b"250 2.1.5 Ok\r\n".repeat(50), 50),
        ("one of 100 lines", [b"250-a line of a long reply\r\n".repeat(99), b"250 the end\r\n".to_vec()].concat(), 1),
    ]
}

fn reply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replies");
    for (name, wire, count) in replies() {
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &wire, |bencher, wire| {
            let mut reader = ReplyReader::default();
            bencher.iter(|| {
                reader.space()[..wire.len()].copy_from_slice(black_box(wire));
                reader.filled(wire.len());
                for _ in 0..count {
                    black_box(reader.next().unwrap().unwrap());
                }
            });
        });
    }
    group.finish();
}

fn ehlo(criterion: &mut Criterion) {
    const WIRE: &[u8] =
        b"250-mail.example.com\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n\
        250-AUTH PLAIN LOGIN\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n";
    criterion.bench_function("EHLO reply to capabilities", |bencher| {
        bencher.iter_batched(
            || {
                let mut reader = ReplyReader::default();
                reader.space()[..WIRE.len()].copy_from_slice(WIRE);
                reader.filled(WIRE.len());
                reader
            },
            |mut reader| {
                let complete = reader.next().unwrap().unwrap();
                Capabilities::from_ehlo(&reader.to_reply(complete))
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, content, reply, ehlo);
criterion_main!(benches);
