//! The folder for account and certificates: one below it for each ACME server, so that a test server's are never taken for real
//! ones.

use super::AcmeError;
use crate::addr::Host;
use crate::channel::tls::by_name::{Certified, dns_names};
use crate::file;
use instant_acme::AccountCredentials;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tracing::warn;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// Chains have a few KiB.
const MAX_FILE: u64 = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Storage {
    folder: PathBuf,
}

/// A certificate with its key, and how long it is good.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) certified: Certified,
    from: SystemTime,
    until: SystemTime,
}

impl Stored {
    /// Two thirds of its life are over.
    pub(super) fn renew_at(&self) -> SystemTime {
        let life = self.until.duration_since(self.from).unwrap_or(Duration::ZERO);
        self.from + life.mul_f64(2.0 / 3.0)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> AcmeError {
    move |error| AcmeError::Storage { path: path.to_owned(), error: error.to_string() }
}

impl Storage {
    /// Makes the folder, for this user alone.
    pub(super) fn open(root: &Path, directory: &str) -> Result<Self, AcmeError> {
        let server = directory.split_once("://").map_or(directory, |(_, rest)| rest);
        let server = server.split('/').next().unwrap_or(server).replace(':', "_");
        let folder = root.join(server);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed(&folder))?;
        Ok(Self { folder })
    }

    /// The account with this server. A file that holds none is set aside: a new account is as good.
    pub(super) fn account(&self) -> Result<Option<AccountCredentials>, AcmeError> {
        let path = self.folder.join("account.json");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(credentials) => Ok(Some(credentials)),
            Err(error) => {
                let aside = path.with_extension("json.broken");
                fs::rename(&path, &aside).map_err(failed(&path))?;
                let (file, aside) = (path.display(), aside.display());
                warn!(%file, %error, %aside, "stored account not usable: it is set aside and a new one is made");
                Ok(None)
            }
        }
    }

    pub(super) fn save_account(&self, credentials: &AccountCredentials) -> Result<(), AcmeError> {
        let text = serde_json::to_string(credentials).map_err(|error| AcmeError::Unusable(text(error)))?;
        self.write("account.json", &text)
    }

    /// The certificate of a host, if there is one that is good for it today.
    pub(super) fn load(&self, host: &Host) -> Result<Option<Stored>, AcmeError> {
        let [path, key] = ["crt", "key"].map(|end| self.folder.join(format!("{host}.{end}")));
        let (Some(chain), Some(key)) = (read(&path)?, read(&key)?) else { return Ok(None) };
        let stored = stored(host, &chain, &key).map_err(|error| AcmeError::Storage {
            path,
            error: format!("not usable with its key: {error}"),
        })?;
        if stored.until <= SystemTime::now() {
            return Ok(None);
        }
        Ok(Some(stored))
    }

    /// Keeps a chain and its key, both PEM.
    pub(super) fn save(&self, host: &Host, chain: &str, key: &str) -> Result<Stored, AcmeError> {
        let stored = stored(host, chain.as_bytes(), key.as_bytes()).map_err(AcmeError::Unusable)?;
        // The key first: with an old certificate it is not usable, and a new one is asked for.
        self.write(&format!("{host}.key"), key)?;
        self.write(&format!("{host}.crt"), chain)?;
        Ok(stored)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), AcmeError> {
        let path = self.folder.join(name);
        file::replace(&path, &[text.as_bytes()]).map_err(failed(&path))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, AcmeError> {
    match fs::metadata(path) {
        Ok(found) if found.len() > MAX_FILE => {
            Err(AcmeError::Storage { path: path.to_owned(), error: "larger than 1 MiB".to_owned() })
        }
        Ok(_) => fs::read(path).map(Some).map_err(failed(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// What is wrong with it where it is not good.
fn stored(host: &Host, chain: &[u8], key: &[u8]) -> Result<Stored, String> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().map_err(text)?;
    let first = chain.first().ok_or("no certificate")?;
    if !dns_names(&chain).is_some_and(|names| names.iter().any(|name| **name == *host.as_str())) {
        return Err(format!("a certificate without the name {host}"));
    }
    let parsed = Certificate::from_der(first).map_err(text)?;
    let validity = parsed.tbs_certificate().validity();
    let [from, until] = [validity.not_before, validity.not_after]
        .map(|time| SystemTime::UNIX_EPOCH + time.to_unix_duration());
    let key = PrivateKeyDer::from_pem_slice(key).map_err(text)?;
    let certified = Certified::new(chain, key).map_err(text)?;
    Ok(Stored { certified, from, until })
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn certificate(host: &str, days: u64) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(3 * 86_400)).into();
        params.not_after = (now + Duration::from_secs(days * 86_400)).into();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn what_is_kept_is_found_again_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path(), "https://acme.example:14000/dir").unwrap();
        let host = Host::parse("a.example").unwrap();
        assert!(storage.load(&host).unwrap().is_none());
        let (chain, key) = certificate("a.example", 87);
        let saved = storage.save(&host, &chain, &key).unwrap();
        let loaded = storage.load(&host).unwrap().unwrap();
        assert_eq!(saved.renew_at(), loaded.renew_at());
        let due = loaded.renew_at().duration_since(SystemTime::now()).unwrap().as_secs() / 86_400;
        assert!((56..=57).contains(&due), "{due}");
        let folder = dir.path().join("acme.example_14000");
        for (path, mode) in [(folder.clone(), 0o700), (folder.join("a.example.key"), 0o600)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
        assert!(storage.account().unwrap().is_none());
    }

    #[test]
    fn what_is_no_good_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path(), "https://acme.example/dir").unwrap();
        let host = Host::parse("a.example").unwrap();
        let (chain, key) = certificate("b.example", 87);
        assert!(storage.save(&host, &chain, &key).is_err());
        let ((chain, _), (_, other)) = (certificate("a.example", 87), certificate("a.example", 87));
        assert!(storage.save(&host, &chain, &other).is_err());
        let (chain, key) = certificate("a.example", 0);
        storage.save(&host, &chain, &key).unwrap();
        assert!(storage.load(&host).unwrap().is_none());
    }
    #[test]
    fn what_is_broken_is_named_and_stands_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path(), "https://acme.example/dir").unwrap();
        let folder = dir.path().join("acme.example");
        for broken in [&b"{}"[..], b"\xff\x00", b""] {
            fs::write(folder.join("account.json"), broken).unwrap();
            assert!(storage.account().unwrap().is_none());
            assert!(!folder.join("account.json").exists());
            assert_eq!(fs::read(folder.join("account.json.broken")).unwrap(), broken);
        }
        let host = Host::parse("a.example").unwrap();
        let (chain, key) = certificate("a.example", 87);
        storage.save(&host, &chain, &key).unwrap();
        for broken in
            [&b"nothing"[..], b"\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            fs::write(folder.join("a.example.crt"), broken).unwrap();
            let told = storage.load(&host).unwrap_err().to_string();
            assert!(told.contains("a.example.crt") && !told.contains("server sent"), "{told}");
        }
    }
}
