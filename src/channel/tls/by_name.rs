//! The side that listens, with the certificate of whatever name is asked for.

use super::files::{FromFiles, TlsError};
use super::identity::Pair;
use super::{Options, Side, TlsStream, alpn_of, explain};
use crate::addr::Host;
use crate::net::BoxStream;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tracing::warn;
use webpki::EndEntityCert;

/// The one application protocol of a connection that proves to an ACME server who has a name (RFC 8737).
pub(crate) const CHALLENGE: &[u8] = b"acme-tls/1";

/// Certificates by the names in them; `*.example.com` has that key.
type Table = HashMap<Box<str>, Arc<CertifiedKey>>;

fn find<'t>(table: &'t Table, host: &str) -> Option<&'t Arc<CertifiedKey>> {
    table.get(host).or_else(|| {
        let (_, parent) = host.split_once('.')?;
        table.get(format!("*.{parent}").as_str())
    })
}

/// Certificates that come from elsewhere than from files and are replaced while connections are served.
#[derive(Default)]
pub(crate) struct Issued {
    certificates: ArcSwap<Table>,
    /// For connections of [`CHALLENGE`].
    challenges: ArcSwap<Table>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

/// A certificate with its key, ready for use.
#[derive(Debug, Clone)]
pub(crate) struct Certified(Arc<CertifiedKey>);

impl Certified {
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
            .map(|certified| Self(Arc::new(certified)))
    }

    /// One of our own making, with what else is not understood in a certificate.
    pub(crate) fn unchecked(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let key = rustls::crypto::aws_lc_rs::default_provider().key_provider.load_private_key(key)?;
        Ok(Self(Arc::new(CertifiedKey::new(vec![certificate], key))))
    }
}

impl Issued {
    pub(crate) fn insert(&self, name: &str, certified: &Certified) {
        put(&self.certificates, name, Some(certified));
    }

    /// For as long as the ACME server looks; `None`: no longer.
    pub(crate) fn challenge(&self, name: &str, certified: Option<&Certified>) {
        put(&self.challenges, name, certified);
    }
}

fn put(table: &ArcSwap<Table>, name: &str, certified: Option<&Certified>) {
    table.rcu(|table| {
        let mut table = Table::clone(table);
        match certified {
            Some(Certified(key)) => drop(table.insert(name.into(), Arc::clone(key))),
            None => drop(table.remove(name)),
        }
        table
    });
}

/// A pair of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The files.
    pub pair: Pair,
    /// Where the configuration names them.
    pub place: String,
}

/// Ends TLS with as many certificates as there are names.
#[derive(Debug)]
pub(crate) struct ByName {
    files: FromFiles<Served>,
    issued: Option<Arc<Issued>>,
}

struct Served {
    config: Arc<ServerConfig>,
    names: Arc<Table>,
    /// One for each pair.
    loaded: Vec<Loaded>,
}

impl ByName {
    /// Reads the files. `issued`: further certificates.
    pub(crate) fn new(
        certificates: &[Certificate],
        options: &Options,
        issued: Option<Arc<Issued>>,
    ) -> Result<Self, TlsError> {
        let files = certificates.iter().flat_map(|certificate| certificate.pair.files()).collect();
        let (certificates, options, more) = (certificates.to_vec(), options.clone(), issued.clone());
        let tickets = Ticketer::new()?;
        let build = move |before: Option<&Served>| {
            let loaded = load(&certificates, before)?;
            Served::new(loaded, &options, more.clone(), Arc::clone(&tickets))
        };
        Ok(Self { files: FromFiles::new(files, build)?, issued })
    }

    /// Whether there is a certificate for this name.
    pub(crate) fn covers(&self, host: &Host) -> bool {
        let issued = || {
            self.issued.as_ref().is_some_and(|more| find(&more.certificates.load(), host.as_str()).is_some())
        };
        find(&self.files.current().names, host.as_str()).is_some() || issued()
    }

    /// Does the handshake on an accepted connection.
    pub(crate) async fn accept(&self, stream: BoxStream) -> io::Result<TlsStream> {
        let accepted = TlsAcceptor::from(Arc::clone(&self.files.current().config)).accept(stream).await;
        accepted.map(|stream| TlsStream::new(stream.into())).map_err(|error| explain(error, Side::Server))
    }
}

/// What is wrong with the options, before anything runs.
pub(crate) fn check(options: &Options) -> Result<(), TlsError> {
    ByName::new(&[], options, None).map(drop)
}

/// The names that these files are for; what is wrong with the files, before anything runs.
pub(crate) fn names_in(pair: &Pair) -> Result<Vec<Box<str>>, TlsError> {
    Loaded::read(pair).map(|loaded| loaded.names)
}

/// A certificate from files, and the names in it.
#[derive(Clone)]
struct Loaded {
    names: Vec<Box<str>>,
    certified: Certified,
}

impl Loaded {
    fn read(pair: &Pair) -> Result<Self, TlsError> {
        let (chain, key) = pair.read()?;
        let names = dns_names(&chain).ok_or_else(|| TlsError::of(&pair.cert, NO_NAME))?;
        let certified = Certified::new(chain, key).map_err(|error| {
            TlsError::of(&pair.cert, format_args!("not usable with {}: {error}", pair.key.display()))
        })?;
        Ok(Self { names, certified })
    }
}

const NO_NAME: &str =
    "no host name in its subjectAltName, which alone counts: neither its commonName nor an address does";

/// Reads all pairs. One that has become unusable leaves its certificate as it was `before`, and the others take theirs.
fn load(certificates: &[Certificate], before: Option<&Served>) -> Result<Vec<Loaded>, TlsError> {
    let load = |(i, Certificate { pair, place }): (usize, &Certificate)| {
        let old = before.and_then(|served| served.loaded.get(i));
        match (Loaded::read(pair), old) {
            (Err(error), Some(old)) => {
                warn!(place, %error, "a certificate is not usable: the one before stays");
                Ok(old.clone())
            }
            (read, _) => read,
        }
    };
    certificates.iter().enumerate().map(load).collect()
}

impl Served {
    fn new(
        loaded: Vec<Loaded>,
        options: &Options,
        issued: Option<Arc<Issued>>,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<Self, TlsError> {
        let mut names = Table::new();
        for Loaded { names: found, certified: Certified(key) } in &loaded {
            for name in found {
                names.entry(name.clone()).or_insert_with(|| Arc::clone(key));
            }
        }
        let names = Arc::new(names);
        let challenged = issued.is_some();
        let resolver = Resolver { names: Arc::clone(&names), issued };
        let mut config = ServerConfig::builder_with_provider(options.provider())
            .with_protocol_versions(options.versions.list())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = match &options.alpn {
            Some(_) => options.alpn(&[]),
            None => alpn_of(&["h2", "http/1.1"]),
        };
        if challenged {
            config.alpn_protocols.push(CHALLENGE.to_vec());
        }
        config.ticketer = tickets;
        Ok(Self { config: Arc::new(config), names, loaded })
    }
}

/// One certificate, for clients that ask for one of these names, or for one of its own where there are none.
pub(super) fn only_for(
    names: &[String],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<Arc<dyn ResolvesServerCert>, TlsError> {
    let names = match names {
        [] => dns_names(&chain).ok_or(TlsError::NoNames)?,
        names => names.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
    };
    let key = Arc::new(CertifiedKey::from_der(chain, key, provider)?);
    let table: Table = names.into_iter().map(|name| (name, Arc::clone(&key))).collect();
    Ok(Arc::new(Resolver { names: Arc::new(table), issued: None }))
}

/// The names in the first certificate of a chain, in lower case; `None` where there is none.
pub(crate) fn dns_names(chain: &[CertificateDer<'static>]) -> Option<Vec<Box<str>>> {
    let certificate = EndEntityCert::try_from(chain.first()?).ok()?;
    let names: Vec<_> = certificate.valid_dns_names().map(|name| name.to_ascii_lowercase().into()).collect();
    (!names.is_empty()).then_some(names)
}

#[derive(Debug)]
struct Resolver {
    names: Arc<Table>,
    issued: Option<Arc<Issued>>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        let challenged =
            hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == CHALLENGE));
        if challenged {
            return find(&self.issued.as_ref()?.challenges.load(), &name).cloned();
        }
        let issued = || find(&self.issued.as_ref()?.certificates.load(), &name).cloned();
        find(&self.names, &name).cloned().or_else(issued)
    }
}
