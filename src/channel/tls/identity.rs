//! A side's own certificate: from files, or made at start.

use super::files::{self, TlsError};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// `certFile` and `keyFile`, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and behind it those that lead to a root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Pair {
    pub(super) fn files(&self) -> [PathBuf; 2] {
        [self.cert.clone(), self.key.clone()]
    }

    pub(super) fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        Ok((files::certificates(&self.cert)?, files::private_key(&self.key)?))
    }
}

/// `commonName`, `organization` and `validity` of a certificate that is made at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// `commonName`, which is its name for clients as well.
    pub common_name: String,
    /// `organization`.
    pub organization: String,
    /// `validity`.
    pub validity: Duration,
}

impl Default for Generated {
    fn default() -> Self {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        Self { common_name: "pointsman".to_owned(), organization: "pointsman".to_owned(), validity: YEAR }
    }
}

impl Generated {
    pub(super) fn make(&self) -> Result<Identity, TlsError> {
        let failed = |error: rcgen::Error| TlsError::Generate(error.to_string());
        let mut params = CertificateParams::new(vec![self.common_name.clone()]).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, &*self.common_name);
        params.distinguished_name.push(DnType::OrganizationName, &*self.organization);
        let now = SystemTime::now();
        params.not_before = now.into();
        params.not_after = (now + self.validity).into();
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let key =
            PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| TlsError::Generate(e.to_owned()))?;
        Ok(Identity::Generated(certificate.der().clone(), key))
    }
}

#[derive(Debug)]
pub(super) enum Identity {
    Files(Pair),
    Generated(CertificateDer<'static>, PrivateKeyDer<'static>),
}

impl Identity {
    pub(super) fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        match self {
            Self::Files(pair) => pair.read(),
            Self::Generated(certificate, key) => Ok((vec![certificate.clone()], key.clone_key())),
        }
    }

    /// SHA-256 of a certificate that was made here, in hexadecimal.
    pub(super) fn fingerprint(&self) -> Option<String> {
        let Self::Generated(certificate, _) = self else { return None };
        Some(Sha256::digest(certificate).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }
}
