//! PEM files, and what is built from them for as long as they stay the same.

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::{info, warn};

/// How often it is looked whether files have changed, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Certificates of all authorities that a system trusts are a quarter of this.
const MAX_FILE: u64 = 1024 * 1024;

/// Files or settings that make no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read, or holds nothing of what it is for.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Key and certificate do not go together, say.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// Nobody to trust.
    #[error("{0}")]
    Roots(String),
    /// No certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Generate(String),
    /// Nobody could be let in.
    #[error("rejectUnknownSNI without serverNames, and no host name in the certificate")]
    NoNames,
    /// Neither a name nor an address.
    #[error("{0:?} is no name that a server can have")]
    Name(String),
}

impl TlsError {
    pub(super) fn of(path: &Path, what: impl fmt::Display) -> Self {
        Self::File { path: path.to_owned(), what: what.to_string() }
    }
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::of(path, "no certificate in it (PEM)")),
        found => found.map_err(|error| TlsError::of(path, error)),
    }
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::of(path, "no private key in it (PEM, not encrypted)"),
        error => TlsError::of(path, error),
    })
}

/// A file of a size that such files have; a device might have no end.
fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let found = fs::metadata(path).map_err(|error| TlsError::of(path, error))?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(TlsError::of(path, "no file of at most 1 MiB"));
    }
    fs::read(path).map_err(|error| TlsError::of(path, error))
}

/// The certificates in a file, as those that sign others.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::of(path, error))?;
    }
    Ok(roots)
}

/// Size, time and inode: when none of them has changed a file is what it was.
type Stamp = Option<(u64, SystemTime, u64)>;

fn stamp(path: &PathBuf) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(path).ok()?;
    Some((found.len(), found.modified().ok()?, found.ino()))
}

/// Something built from files, and built anew when one of them has changed. Files that are wrong leave it as it is.
pub(super) struct FromFiles<T> {
    files: Vec<PathBuf>,
    build: Box<Build<T>>,
    state: Mutex<State<T>>,
}

/// Builds it, from the second time on with what was built before.
type Build<T> = dyn Fn(Option<&T>) -> Result<T, TlsError> + Send + Sync;

struct State<T> {
    current: Arc<T>,
    stamps: Vec<Stamp>,
    looked: Instant,
}

impl<T> FromFiles<T> {
    pub(super) fn new(
        files: Vec<PathBuf>,
        build: impl Fn(Option<&T>) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let stamps = files.iter().map(stamp).collect();
        let state = State { current: Arc::new(build(None)?), stamps, looked: Instant::now() };
        Ok(Self { files, build: Box::new(build), state: Mutex::new(state) })
    }

    /// What the files say now.
    pub(super) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.files.is_empty() && state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            let stamps: Vec<_> = self.files.iter().map(stamp).collect();
            if stamps != state.stamps {
                state.stamps = stamps;
                info!(files = ?self.files, "certificates have changed and are read anew");
                match (self.build)(Some(&*state.current)) {
                    Ok(built) => state.current = Arc::new(built),
                    Err(error) => warn!(%error, "certificates are not usable: the ones before stay"),
                }
            }
        }
        Arc::clone(&state.current)
    }
}

impl<T> fmt::Debug for FromFiles<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFiles").field("files", &self.files).finish_non_exhaustive()
    }
}
