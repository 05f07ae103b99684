//! How fast content is brought into the form that it has on the wire. The encoder is the crate's own file, included by path.

use std::hint::black_box;
use std::time::Duration;

use crate::Plan;
use crate::body::BodyEncoder;
use crate::mail;
use crate::paired::{Contestant, as_f64, compete, processor_time};
use crate::report::{Bound, Report, Row};

const SIZE: usize = 10_000_000;
/// The size of the pieces in which content leaves.
const CHUNK: usize = 64 * 1024;

/// Encodes or copies the whole content, a chunk at a time, in processor time.
struct Pass<F> {
    name: &'static str,
    content: Vec<u8>,
    pass: F,
}

impl<F: FnMut(&[u8])> Contestant for Pass<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn work(&mut self, amount: usize) -> Duration {
        processor_time(|| (0..amount).for_each(|_| (self.pass)(&self.content)))
    }

    fn granularity(&self) -> usize {
        1
    }
}

pub fn measure(plan: &Plan, report: &mut Report) {
    const STUFFED: &str = "base64";
    const DOTS: &str = "a dot at the start of each line, bare line feeds";
    const COPIED: &str = "copied as it is";
    let base64 = mail::base64_content(SIZE);
    let dots: Vec<u8> = b".A line of a message that begins with a dot.\n".iter().cycle().take(SIZE).copied().collect();
    let encode = || {
        let mut out = Vec::with_capacity(CHUNK + 8);
        move |content: &[u8]| {
            let mut encoder = BodyEncoder::new(content.into());
            loop {
                out.clear();
                let is_done = encoder.fill(&mut out, CHUNK);
                black_box(&out);
                if is_done {
                    return;
                }
            }
        }
    };
    let mut out: Vec<u8> = Vec::with_capacity(CHUNK);
    let copy = |content: &[u8]| {
        for chunk in content.chunks(CHUNK) {
            out.clear();
            out.extend_from_slice(chunk);
            black_box(&out);
        }
    };
    let mut contestants: Vec<Box<dyn Contestant + '_>> = vec![
        Box::new(Pass { name: STUFFED, content: base64.clone(), pass: encode() }),
        Box::new(Pass { name: DOTS, content: dots, pass: encode() }),
        Box::new(Pass { name: COPIED, content: base64, pass: copy }),
    ];
    let rates = compete(&mut contestants, plan.effort(21, Duration::from_millis(100)));

    let gigabytes = |name: &str| {
        let mut spread = rates.of(name);
        for value in [&mut spread.median, &mut spread.least, &mut spread.most] {
            *value *= as_f64(SIZE) / 1e9;
        }
        spread
    };
    let rows = vec![
        Row::promised("dot-stuffing and normalising, 10 MB of base64", "GB/s", Bound::AtLeast(2.0), gigabytes(STUFFED)),
        Row::shown(format!("the same, {DOTS}"), "GB/s", gigabytes(DOTS)),
        Row::shown("processor time, against copying the same bytes", "×", rates.ratio(COPIED, STUFFED)),
    ];
    report.add("content, 10 MB", rows);
}
