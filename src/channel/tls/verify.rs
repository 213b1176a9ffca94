//! Who the other side has to be.

use super::files::{self, TlsError};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// What a server must show.
#[derive(Debug)]
pub(super) enum Trust {
    /// Any certificate.
    Anybody,
    /// The one with this SHA-256.
    Pinned([u8; 32]),
    /// One that these have signed, or one of them itself, as with the self-signed certificates of small installations.
    Signed { by: Arc<WebPkiServerVerifier>, itself: Vec<CertificateDer<'static>>, name: bool },
}

impl Trust {
    pub(super) fn chain_and_name(
        ca: Option<&Path>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        match ca {
            Some(ca) => Self::signed(ca, true, provider),
            None => {
                Ok(Self::Signed { by: verifier(system_roots()?, provider)?, itself: Vec::new(), name: true })
            }
        }
    }

    pub(super) fn chain(ca: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        Self::signed(ca, false, provider)
    }

    fn signed(ca: &Path, name: bool, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let by = verifier(files::roots(ca)?, provider)?;
        Ok(Self::Signed { by, itself: files::certificates(ca)?, name })
    }
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.build().map_err(|error| TlsError::Roots(error.to_string()))
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::Roots(format!("the system has no CA certificates: {}", errors.join(", "))));
    }
    Ok(roots)
}

#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) trust: Trust,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            Trust::Anybody => Ok(ServerCertVerified::assertion()),
            Trust::Pinned(fingerprint) if Sha256::digest(end_entity)[..] == fingerprint[..] => {
                Ok(ServerCertVerified::assertion())
            }
            Trust::Pinned(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Trust::Signed { itself, name, .. } if itself.iter().any(|trusted| trusted == end_entity) => {
                if *name {
                    rustls::client::verify_server_name(
                        &ParsedCertificate::try_from(end_entity)?,
                        server_name,
                    )?;
                }
                Ok(ServerCertVerified::assertion())
            }
            Trust::Signed { by, name, .. } => {
                // The name is looked at last: whoever fails there has a good chain.
                match by.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                    Err(Error::InvalidCertificate(
                        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                    )) if !name => Ok(ServerCertVerified::assertion()),
                    verified => verified,
                }
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a client must show: a certificate that one in `caFile` has signed, or one of them itself.
#[derive(Debug)]
pub(super) struct Clients {
    by: Arc<dyn ClientCertVerifier>,
    itself: Vec<CertificateDer<'static>>,
}

impl Clients {
    pub(super) fn of(ca: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let roots = Arc::new(files::roots(ca)?);
        let by = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
        let by = by.build().map_err(|error| TlsError::of(ca, error))?;
        Ok(Self { by, itself: files::certificates(ca)? })
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !self.itself.iter().any(|trusted| trusted == end_entity) {
            return self.by.verify_client_cert(end_entity, intermediates, now);
        }
        match self.by.verify_client_cert(end_entity, &[], now) {
            // Nobody has to vouch for it. Its dates are looked at before these.
            Err(error) if is_ca(&error) || error == CertificateError::UnknownIssuer.into() => {
                Ok(ClientCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by.supported_verify_schemes()
    }
}

/// Whether a certificate was refused because it is one that signs others, as self-signed ones of `openssl req -x509` are.
pub(super) fn is_ca(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(error)) = error else { return false };
    matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}
