//! Whatever bytes arrive in whatever pieces: the reader never panics, keeps no more than its bounds allow, and finds the same replies
//! as a naive reading of the whole buffer; or both say that it is none.
//!
//! Input: a count, so many sizes of pieces (used by turns), then bytes. `~` and a byte `n` repeat the byte before it 8 n times, `^`
//! and `n` the line before it n times, so that the bounds on lines and replies are within a short input's reach.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_pool::fuzzing::read_replies;

const LONGEST: usize = 256 * 1024;

fn expanded(input: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    let mut bytes = input.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, bytes.clone().next(), out.last().copied()) {
            (b'~', Some(&count), Some(last)) => {
                bytes.next();
                out.extend(std::iter::repeat_n(last, 8 * usize::from(count)));
            }
            (b'^', Some(&count), Some(b'\n')) => {
                bytes.next();
                let start = out[..out.len() - 1].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                let line = out[start..].to_vec();
                let times = usize::from(count).min(LONGEST / line.len());
                out.extend(line.repeat(times));
            }
            _ => out.push(byte),
        }
        out.truncate(LONGEST);
    }
    out
}

fuzz_target!(|input: &[u8]| {
    let Some((&count, input)) = input.split_first() else { return };
    let Some((sizes, input)) = input.split_at_checked(usize::from(count % 8)) else { return };
    let bytes = expanded(input);
    let mut chunks = Vec::new();
    let mut rest = &*bytes;
    // 255 stands for more than any buffer holds at once.
    let sizes = sizes.iter().map(|&size| if size == 255 { 100_000 } else { usize::from(size).max(1) });
    for size in sizes.chain([100]).collect::<Vec<_>>().into_iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, behind) = rest.split_at(size.min(rest.len()));
        chunks.push(chunk);
        rest = behind;
    }

    let (replies, end, kept) = read_replies(&chunks);
    let (expected, leftover) = naive::replies(&bytes);
    let replies: Vec<_> = replies
        .iter()
        .map(|reply| naive::Reply { code: reply.code(), lines: reply.lines().map(<[u8]>::to_vec).collect() })
        .collect();
    assert_eq!(replies, expected);
    assert_eq!(end.as_ref().ok(), leftover.as_ref(), "{end:?}");
    assert!(kept <= naive::LONGEST_REPLY, "{kept} bytes kept");
});
