//! Whatever the content and wherever its chunks end: the encoder equals a naive one, no chunk is larger than asked for (but for a pair
//! and a dot that belong together), the end of data stands on the wire once and last, and a server takes the content from it again.
//!
//! Input: a count, so many sizes of chunks (used by turns), then the content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_pool::fuzzing::encode;

fuzz_target!(|input: &[u8]| {
    let Some((&count, input)) = input.split_first() else { return };
    let Some((sizes, content)) = input.split_at_checked(usize::from(count % 8) + 1) else { return };
    let sizes = || sizes.iter().map(|&size| usize::from(size).max(1)).cycle();

    let chunks = encode(content, sizes());
    let (_last, all_but_last) = chunks.split_last().unwrap();
    for (chunk, size) in all_but_last.iter().zip(sizes()) {
        assert!((size..=size + 3).contains(&chunk.len()), "{} bytes in a chunk of {size}", chunk.len());
    }
    let wire = chunks.concat();
    assert_eq!(wire, naive::on_the_wire(content));
    assert_eq!(naive::received(&wire), Some((naive::normalised(content), wire.len())));
    // Behind the line end of DATA.
    let framed = [b"\r\n", &*wire].concat();
    assert_eq!(framed.windows(5).filter(|window| window == b"\r\n.\r\n").count(), 1);
    let lone_cr = |pair: &[u8]| pair[0] == b'\r' && pair[1] != b'\n';
    let lone_lf = |pair: &[u8]| pair[0] != b'\r' && pair[1] == b'\n';
    assert!(!framed.windows(2).any(|pair| lone_cr(pair) || lone_lf(pair)));
});
