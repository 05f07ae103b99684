//! The version of TLS that a server chose, heard from its own first words.
//!
//! native-tls does not tell. The `ServerHello` is in the clear in every version, so what passes through the stream on its way to the TLS
//! library says it. Sans-IO, and for a person's eyes only: no decision rests on it.

use crate::trace::TlsVersion;

/// More than a `ServerHello` has before its extensions, and extensions as long as any server's.
const MOST: usize = 1024;

const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const SUPPORTED_VERSIONS: u16 = 43;

/// What has been heard of it.
#[derive(Debug, Default)]
pub(super) enum ServerHello {
    /// Nobody listens.
    #[default]
    Unheard,
    /// The first bytes so far.
    Listening(Vec<u8>),
    /// It is over.
    Heard(TlsVersion),
}

impl ServerHello {
    pub(super) const fn listening() -> Self {
        Self::Listening(Vec::new())
    }

    /// These bytes came from the server.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        if let Self::Listening(heard) = self {
            let room = MOST.saturating_sub(heard.len());
            heard.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// The handshake is over.
    pub(super) fn conclude(&mut self) {
        if let Self::Listening(heard) = self {
            *self = Self::Heard(version_in(heard).unwrap_or(TlsVersion::Unknown));
        }
    }

    pub(super) const fn version(&self) -> TlsVersion {
        match self {
            Self::Heard(version) => *version,
            Self::Unheard | Self::Listening(_) => TlsVersion::Unknown,
        }
    }
}

/// The version that a `ServerHello` names: the one in its `supported_versions`
/// ([RFC 8446 §4.2.1](https://www.rfc-editor.org/rfc/rfc8446#section-4.2.1)), or else the one in its head
/// ([RFC 5246 §7.4.1.3](https://www.rfc-editor.org/rfc/rfc5246#section-7.4.1.3)).
fn version_in(heard: &[u8]) -> Option<TlsVersion> {
    let mut rest = Rest(heard);
    let is_handshake = rest.byte()? == HANDSHAKE;
    rest.take(4)?; // the record's version and length
    let is_hello = rest.byte()? == SERVER_HELLO;
    rest.take(3)?; // the message's length
    if !is_handshake || !is_hello {
        return None;
    }
    let in_head = rest.number()?;
    rest.take(32)?; // the random
    let session = rest.byte()?;
    rest.take(usize::from(session))?;
    rest.take(3)?; // cipher suite and compression
    let extensions = rest.number().unwrap_or(0);
    let mut extensions = Rest(rest.take(usize::from(extensions)).unwrap_or_default());
    while let Some(kind) = extensions.number() {
        let length = extensions.number()?;
        let data = extensions.take(usize::from(length))?;
        if kind == SUPPORTED_VERSIONS {
            return Rest(data).number().and_then(named);
        }
    }
    named(in_head)
}

const fn named(version: u16) -> Option<TlsVersion> {
    match version {
        0x0303 => Some(TlsVersion::Tls12),
        0x0304 => Some(TlsVersion::Tls13),
        _ => None,
    }
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `ServerHello` by the letter of RFC 5246 and RFC 8446.
    fn hello(in_head: [u8; 2], session: usize, extensions: &[u8]) -> Vec<u8> {
        let mut body = in_head.to_vec();
        body.extend([7; 32]);
        body.push(u8::try_from(session).unwrap());
        body.extend(vec![9; session]);
        body.extend([0x13, 0x01, 0x00]);
        if !extensions.is_empty() {
            body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend(extensions);
        }
        let mut message = vec![22, 3, 3];
        message.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend([2, 0]);
        message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(body);
        message.extend(b"the next record");
        message
    }

    fn heard(bytes: &[u8], at_a_time: usize) -> TlsVersion {
        let mut hello = ServerHello::listening();
        bytes.chunks(at_a_time).for_each(|chunk| hello.hear(chunk));
        hello.conclude();
        hello.version()
    }

    #[test]
    fn the_version_is_the_one_that_the_server_chose() {
        let key_share = [0, 51, 0, 2, 0, 29];
        let versions = [0, 43, 0, 2, 3, 4];
        for at_a_time in [1, 5, 1000] {
            for session in [0, 32] {
                let old = heard(&hello([3, 3], session, &[]), at_a_time);
                let old_extended = heard(&hello([3, 3], session, &[0xff, 1, 0, 1, 0]), at_a_time);
                let new = heard(&hello([3, 3], session, &[key_share, versions].concat()), at_a_time);
                assert_eq!((old, old_extended, new), (TlsVersion::Tls12, TlsVersion::Tls12, TlsVersion::Tls13));
            }
        }
        assert_eq!(heard(&hello([3, 1], 0, &[]), 1000), TlsVersion::Unknown, "TLS 1.0 is never agreed to");
    }

    #[test]
    fn whatever_comes_instead_is_some_version() {
        let whole = hello([3, 3], 32, &[0, 43, 0, 2, 3, 4]);
        for end in 0..47 {
            assert_eq!(heard(&whole[..end], 1000), TlsVersion::Unknown, "cut after {end}");
        }
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut bytes = whole.clone();
            let place = rng.usize(..bytes.len());
            bytes[place] = rng.u8(..);
            heard(&bytes, 1000);
        }
        let mut endless = ServerHello::listening();
        (0..10_000).for_each(|_| endless.hear(&[22; 100]));
        assert!(matches!(&endless, ServerHello::Listening(bytes) if bytes.len() == MOST));
    }
}
