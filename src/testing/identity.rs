//! Throw-away certificates, made when a server needs its first TLS handshake.

use native_tls::TlsAcceptor;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd};

/// What kind of certificate the server shows in a TLS handshake.
///
/// Every kind but [`SelfSigned`](Self::SelfSigned) is signed by an authority made for this one server;
/// [`TestServer::root_certificate_pem`](super::TestServer::root_certificate_pem) is that authority's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateKind {
    /// Valid now, for the names `localhost`, `127.0.0.1` and `::1`. The default.
    #[default]
    Valid,
    /// Valid now, but only for `wrong-name.example`.
    WrongName,
    /// The right names; the time of validity is long over.
    Expired,
    /// The right names; the time of validity has not begun.
    NotYetValid,
    /// The right names, signed with its own key: `root_certificate_pem` does not vouch for it.
    SelfSigned,
    /// The right names, signed by an authority of the same name as the one in `root_certificate_pem`, with another key.
    UnknownAuthority,
}

pub(super) struct Identity {
    pub(super) acceptor: TlsAcceptor,
    pub(super) root_pem: String,
}

struct Authority {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Identity {
    pub(super) fn generate(kind: CertificateKind) -> Self {
        let authority = Authority::generate();
        let key = KeyPair::generate().expect("a P-256 key can be generated");
        let params = leaf(kind);
        let chain = match kind {
            CertificateKind::SelfSigned => params.self_signed(&key).expect("self-signed certificate").pem(),
            CertificateKind::UnknownAuthority => Authority::generate().sign(params, &key),
            _ => authority.sign(params, &key),
        };
        let identity = native_tls::Identity::from_pkcs8(chain.as_bytes(), key.serialize_pem().as_bytes())
            .expect("the TLS library takes a generated certificate");
        let acceptor = TlsAcceptor::new(identity).expect("the TLS library takes a generated identity");
        Self { acceptor, root_pem: authority.certificate.pem() }
    }
}

impl Authority {
    fn generate() -> Self {
        let key = KeyPair::generate().expect("a P-256 key can be generated");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test server authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("self-signed authority");
        Self { certificate, key }
    }

    /// The whole chain as PEM, leaf first.
    fn sign(&self, params: CertificateParams, key: &KeyPair) -> String {
        let leaf = params.signed_by(key, &self.certificate, &self.key).expect("the authority signs");
        leaf.pem() + &self.certificate.pem()
    }
}

fn leaf(kind: CertificateKind) -> CertificateParams {
    let names: &[&str] = match kind {
        CertificateKind::WrongName => &["wrong-name.example"],
        _ => &["localhost", "127.0.0.1", "::1"],
    };
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).expect("the names are valid");
    params.distinguished_name.push(DnType::CommonName, "test server");
    match kind {
        CertificateKind::Expired => {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        CertificateKind::NotYetValid => params.not_before = date_time_ymd(3000, 1, 1),
        _ => {}
    }
    params
}
