//! TLS by native-tls.

use std::io;

use native_tls::{HandshakeError, Identity, Protocol, TlsConnector};

use crate::event::{Event, Fault, Step};
use crate::options::{Host, parse_certificate};
use crate::stage::SendStage;

use super::failure::{Failure, fault_of};
use super::stream::{DeadlineStream, DeadlineTcp};

/// The connector of one host. Reads the system's roots, so it is made at the first connection and kept.
pub(super) fn connector_for(host: &Host) -> native_tls::Result<TlsConnector> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    for certificate in &host.root_certificates {
        builder.add_root_certificate(parse_certificate(certificate)?);
    }
    if let Some(identity) = &host.client_identity {
        builder.identity(Identity::from_pkcs8(&identity.certificates, &identity.key)?);
    }
    builder.danger_accept_invalid_certs(host.accept_invalid_certificates);
    builder.danger_accept_invalid_hostnames(host.accept_invalid_hostnames);
    builder.build()
}

/// Runs the handshake; the name in the certificate must be `name`.
pub(super) fn handshake(connector: &TlsConnector, name: &str, tcp: DeadlineTcp) -> Result<DeadlineStream, Failure> {
    // The TLS library drops the stream when it fails: that is to cut it, as everything that is out of step is cut.
    tcp.cut_on_drop(true);
    match connector.connect(name.trim_end_matches('.'), tcp) {
        Ok(stream) => {
            stream.get_ref().cut_on_drop(false);
            Ok(DeadlineStream::Tls(Box::new(stream)))
        }
        Err(HandshakeError::Failure(error)) => Err(failure(error)),
        Err(HandshakeError::WouldBlock(_)) => {
            // The stream underneath waits until its deadline and never says "try again".
            let error = io::Error::other("the handshake stopped half-way");
            Err(Failure::transport(Step::TlsHandshake, error, SendStage::Connected))
        }
    }
}

pub(super) fn failure(error: native_tls::Error) -> Failure {
    let event = Event::Transport(Step::TlsHandshake, fault_of_tls(&error));
    Failure { source: Some(error.into()), ..Failure::new(event, SendStage::Connected) }
}

/// The fault behind a TLS error. The backends have no common code for a certificate that was not accepted, by us or by the server,
/// but each of them names the thing.
fn fault_of_tls(error: &native_tls::Error) -> Fault {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return fault_of(error);
        }
        cause = error.source();
    }
    let text = error.to_string().to_ascii_lowercase();
    if text.contains("certificate") { Fault::Certificate } else { Fault::Broken }
}
