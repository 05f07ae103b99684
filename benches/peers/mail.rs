//! What everybody sends.

use lettre::address::Envelope;

pub const FROM: &str = "from@example.com";

pub fn recipient(number: usize) -> String {
    if number == 0 { "to@example.com".to_owned() } else { format!("to{number}@example.com") }
}

pub fn envelope(recipients: usize) -> Envelope {
    let to = (0..recipients).map(|number| recipient(number).parse().unwrap());
    Envelope::new(Some(FROM.parse().unwrap()), to.collect()).unwrap()
}

/// A message of exactly `size` bytes, with nothing in it that needs an escape.
pub fn content(size: usize) -> Vec<u8> {
    let mut content = format!("From: {FROM}\r\nTo: {}\r\nSubject: peers\r\n\r\n", recipient(0)).into_bytes();
    let line = b"It was a dark and stormy night; the rain fell in torrents.\r\n";
    assert!(size > content.len() + 2, "the header fits");
    content.extend(line.iter().cycle().take(size - content.len() - 2));
    // The cycle may have stopped between CR and LF.
    if content.ends_with(b"\r") {
        *content.last_mut().unwrap() = b'.';
    }
    content.extend(b"\r\n");
    assert_eq!(content.len(), size);
    content
}

/// A message as large as `size` and as most of its bytes are: base64, in lines of 76.
pub fn base64_content(size: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut rng = fastrand::Rng::with_seed(1);
    let mut content = Vec::with_capacity(size + 78);
    while content.len() < size {
        content.extend((0..76).map(|_| ALPHABET[rng.usize(..64)]));
        content.extend(b"\r\n");
    }
    content
}
