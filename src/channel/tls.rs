//! TLS on a byte stream, by rustls: what each side proves, and by which files (section 7.1 of the wire specification).
//!
//! Files are read anew when they change. A side that does not verify the other one says so, once and loudly.

pub(crate) mod by_name;
mod files;
mod identity;
mod quic;
mod stream;
mod verify;

pub use files::TlsError;
pub use identity::{Generated, Pair};
pub use stream::TlsStream;

use crate::addr::Host;
use crate::net::BoxStream;
use files::FromFiles;
use identity::Identity;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{IpAddr, ServerName};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::{info, warn};
use verify::Trust;

/// `tls` of a dialer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// `secure`: the server must show a certificate for its name, by `caFile` or what the system trusts.
    pub secure: bool,
    /// `caFile`: who signs server certificates. Without `secure` the chain is verified and the name is not.
    pub ca: Option<PathBuf>,
    /// `serverName`: the name to ask for and to verify; `None`: the host that is dialled.
    pub server_name: Option<String>,
    /// `fingerprint`: SHA-256 of the certificate that the server must show; then neither chain nor name count.
    pub fingerprint: Option<[u8; 32]>,
    /// `certFile`, `keyFile`: the client's own certificate.
    pub pair: Option<Pair>,
    /// `options`.
    pub options: Options,
}

/// `tls` of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// `certFile`, `keyFile`; `None`: a self-signed certificate is made at start.
    pub pair: Option<Pair>,
    /// What the self-signed certificate says.
    pub generated: Generated,
    /// `caFile`: clients must show a certificate that it signs.
    pub client_ca: Option<PathBuf>,
    /// `rejectUnknownSNI`, `serverNames`: clients must ask for one of these names, `*.example.com` among them, or where there
    /// are none for one in the certificate. `None`: for whatever they like.
    pub names: Option<Vec<String>>,
    /// `options`.
    pub options: Options,
}

impl ClientSettings {
    /// What is wrong with the files, before anything runs.
    pub fn check(&self) -> Result<(), TlsError> {
        self.server_name.as_deref().map(server_name).transpose()?;
        client_config(self).map(drop)
    }
}

impl ServerSettings {
    /// What is wrong with the files, before anything runs.
    pub fn check(&self) -> Result<(), TlsError> {
        let identity =
            self.pair.clone().map_or_else(|| self.generated.make(), |pair| Ok(Identity::Files(pair)))?;
        server_config(&identity, self, &[]).map(drop)
    }
}

/// `tls.options`, alike at both ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `minVersion`, `maxVersion`.
    pub versions: Versions,
    /// `alpn`, in order of preference; `None`: what the data channel says.
    pub alpn: Option<Vec<String>>,
    /// `cipherSuites` by their names in the IANA registry; empty: all that rustls has.
    pub cipher_suites: Vec<String>,
}

/// Which versions are spoken; there are two that are safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 only.
    Tls12,
    /// 1.3 only.
    Tls13,
}

impl Versions {
    fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
        const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        match self {
            Self::Both => rustls::ALL_VERSIONS,
            Self::Tls12 => TLS12,
            Self::Tls13 => TLS13,
        }
    }
}

impl Options {
    /// Whether both sides may agree on TLS 1.3.
    pub fn allow_tls13(&self) -> bool {
        let provider = self.provider();
        self.versions != Versions::Tls12 && provider.cipher_suites.iter().any(|suite| suite.tls13().is_some())
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        if !self.cipher_suites.is_empty() {
            provider.cipher_suites.retain(|suite| self.cipher_suites.contains(&suite_name(*suite)));
        }
        Arc::new(provider)
    }

    fn alpn(&self, channel: &[&str]) -> Vec<Vec<u8>> {
        match &self.alpn {
            Some(own) => own.iter().map(|name| name.clone().into_bytes()).collect(),
            None => alpn_of(channel),
        }
    }
}

/// The cipher suites that `cipherSuites` may name.
pub fn cipher_suites() -> impl Iterator<Item = String> {
    aws_lc_rs::ALL_CIPHER_SUITES.iter().map(|suite| suite_name(*suite))
}

/// rustls names those of TLS 1.3 after the version, the registry does not.
fn suite_name(suite: rustls::SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

/// The side that dials.
#[derive(Debug)]
pub struct Connector {
    config: FromFiles<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    /// Whether the settings say which application protocols are asked for.
    fixed_alpn: bool,
}

fn alpn_of(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

impl Connector {
    /// Reads the files.
    pub fn new(settings: &ClientSettings) -> Result<Self, TlsError> {
        let server_name = settings.server_name.as_deref().map(server_name).transpose()?;
        let files = settings.pair.iter().flat_map(Pair::files).chain(settings.ca.clone()).collect();
        let (settings, fixed_alpn) = (settings.clone(), settings.options.alpn.is_some());
        let config = FromFiles::new(files, move |_| client_config(&settings))?;
        Ok(Self { config, server_name, fixed_alpn })
    }

    /// Does the handshake on a new connection to that host. `alpn`: what is asked for this time, unless the settings say so.
    pub async fn connect(&self, stream: BoxStream, host: &Host, alpn: &[&str]) -> io::Result<TlsStream> {
        let (name, config) = (self.name(host)?, self.config.current());
        let alpn = if self.fixed_alpn { config.alpn_protocols.clone() } else { alpn_of(alpn) };
        let connected = TlsConnector::from(config).with_alpn(alpn).connect(name, stream).await;
        connected.map(|stream| TlsStream::new(stream.into())).map_err(|error| explain(error, Side::Client))
    }

    /// Whom the server has to be.
    fn name(&self, host: &Host) -> io::Result<ServerName<'static>> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => host_name(host).map_err(io::Error::other),
        }
    }
}

/// For clients of other libraries: servers have to show a certificate for their name, by `ca`.
pub(crate) fn trusting(ca: &Path) -> Result<ClientConfig, TlsError> {
    client_config(&ClientSettings { secure: true, ca: Some(ca.to_owned()), ..ClientSettings::default() })
}

fn client_config(settings: &ClientSettings) -> Result<ClientConfig, TlsError> {
    let provider = settings.options.provider();
    let trust = match (settings.fingerprint, settings.secure, &settings.ca) {
        (Some(fingerprint), ..) => Trust::Pinned(fingerprint),
        (None, true, ca) => Trust::chain_and_name(ca.as_deref(), &provider)?,
        (None, false, Some(ca)) => Trust::chain(ca, &provider)?,
        (None, false, None) => Trust::Anybody,
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(settings.options.versions.list())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::Verifier {
            trust,
            provider: Arc::clone(&provider),
        }));
    let mut config = match &settings.pair {
        Some(pair) => {
            let (chain, key) = pair.read()?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = settings.options.alpn(&[]);
    Ok(config)
}

/// The side that listens.
#[derive(Debug)]
pub struct Acceptor {
    config: FromFiles<ServerConfig>,
}

impl Acceptor {
    /// Reads the files, or makes a certificate where there are none. `alpn`: what the data channel offers unless the settings do.
    pub fn new(
        settings: &ServerSettings,
        service: &str,
        alpn: &'static [&'static str],
    ) -> Result<Self, TlsError> {
        let files = settings.pair.iter().flat_map(Pair::files).chain(settings.client_ca.clone()).collect();
        let identity = match &settings.pair {
            Some(pair) => Identity::Files(pair.clone()),
            None => {
                let identity = settings.generated.make()?;
                let fingerprint = identity.fingerprint();
                info!(
                    service,
                    fingerprint,
                    "self-signed certificate, for want of certFile and keyFile; clients can pin it"
                );
                identity
            }
        };
        let settings = settings.clone();
        let config = FromFiles::new(files, move |_| server_config(&identity, &settings, alpn))?;
        Ok(Self { config })
    }

    /// Does the handshake on an accepted connection.
    pub async fn accept(&self, stream: BoxStream) -> io::Result<TlsStream> {
        let accepted = TlsAcceptor::from(self.config.current()).accept(stream).await;
        accepted.map(|stream| TlsStream::new(stream.into())).map_err(|error| explain(error, Side::Server))
    }
}

fn server_config(
    identity: &Identity,
    settings: &ServerSettings,
    alpn: &[&str],
) -> Result<ServerConfig, TlsError> {
    let options = &settings.options;
    let provider = options.provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(options.versions.list())?;
    let builder = match &settings.client_ca {
        Some(ca) => builder.with_client_cert_verifier(Arc::new(verify::Clients::of(ca, &provider)?)),
        None => builder.with_no_client_auth(),
    };
    let (chain, key) = identity.read()?;
    let mut config = match &settings.names {
        Some(names) => builder.with_cert_resolver(by_name::only_for(names, chain, key, &provider)?),
        None => builder.with_single_cert(chain, key)?,
    };
    config.alpn_protocols = options.alpn(alpn);
    Ok(config)
}

/// Says once, for the dialer of a node, that anybody may stand between it and its server.
pub fn warn_of_no_verification(node: &str, settings: &ClientSettings) {
    match settings {
        ClientSettings { secure: true, .. } | ClientSettings { fingerprint: Some(_), .. } => {}
        ClientSettings { ca: Some(_), .. } => warn!(
            node,
            "the server's NAME IS NOT VERIFIED: any server that the CA has signed may pose as this one; set tls.secure: true"
        ),
        _ => warn!(
            node,
            "the server's certificate IS NOT VERIFIED: whoever is on the way can read and change everything; set tls.secure: true \
             (with tls.caFile for a CA of your own), or tls.fingerprint to what the server's log says"
        ),
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text.to_owned()).map_err(|_| TlsError::Name(text.to_owned()))
}

/// Of an IP address, no name is sent, but the certificate has to hold it.
fn host_name(host: &Host) -> Result<ServerName<'static>, TlsError> {
    match host.ip() {
        Some(ip) => Ok(ServerName::IpAddress(IpAddr::from(ip))),
        None => server_name(host.as_str()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// What a handshake's failure means and what can be done about it.
fn explain(error: io::Error, side: Side) -> io::Error {
    match reason(&error) {
        Some(reason) => said(&error, reason, side),
        None => {
            io::Error::new(error.kind(), format!("TLS handshake: {error}; is it the same type at both ends?"))
        }
    }
}

/// The same of what comes behind it: in TLS 1.3 a client learns there what the server thinks of its certificate.
fn explain_later(error: io::Error, side: Side) -> io::Error {
    match reason(&error) {
        Some(reason) => said(&error, reason, side),
        None => error,
    }
}

fn reason(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn said(error: &io::Error, reason: &rustls::Error, side: Side) -> io::Error {
    if verify::is_ca(reason) {
        let advice = match side {
            Side::Client => GIVE_THE_CERTIFICATE,
            Side::Server => SHOWS_A_STRANGE_CERTIFICATE,
        };
        return io::Error::new(error.kind(), format!("TLS: the peer's certificate is a CA's; {advice}"));
    }
    let advice = advice(reason, side).map(|advice| format!("; {advice}")).unwrap_or_default();
    io::Error::new(error.kind(), format!("TLS: {reason}{advice}"))
}

fn advice(reason: &rustls::Error, side: Side) -> Option<&'static str> {
    use rustls::CertificateError as Certificate;
    use rustls::{AlertDescription as Alert, Error, PeerIncompatible as Incompatible};
    Some(match (side, reason) {
        (Side::Client, Error::InvalidMessage(_)) => {
            "the server speaks no TLS here: is it the same type at both ends?"
        }
        (Side::Server, Error::InvalidMessage(_)) => {
            "the client speaks no TLS: is it the same type at both ends?"
        }
        (Side::Client, Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature)) => {
            "give the server's CA as tls.caFile, or its fingerprint as tls.fingerprint"
        }
        (
            Side::Client,
            Error::InvalidCertificate(
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
            ),
        ) => "give the name in the certificate as tls.serverName",
        (Side::Client, Error::InvalidCertificate(Certificate::ApplicationVerificationFailure)) => {
            "the certificate is not the one of tls.fingerprint"
        }
        (Side::Client, Error::AlertReceived(Alert::AccessDenied | Alert::UnrecognisedName)) => {
            "it may know no such name: give one that it has as tls.serverName"
        }
        (Side::Client, Error::AlertReceived(Alert::CertificateRequired)) => WANTS_CERTIFICATE,
        (
            Side::Client,
            Error::AlertReceived(Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown),
        ) => TAKES_NO_SUCH_CERTIFICATE,
        (Side::Server, Error::General(_)) => {
            "the client asks for no name that is served here (rejectUnknownSNI, serverNames)"
        }
        (Side::Server, Error::NoCertificatesPresented) => SHOWS_NO_CERTIFICATE,
        (Side::Server, Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature)) => {
            SHOWS_A_STRANGE_CERTIFICATE
        }
        (
            Side::Server,
            Error::AlertReceived(
                Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown | Alert::AccessDenied,
            ),
        ) => DISTRUSTED,
        (_, Error::NoApplicationProtocol | Error::AlertReceived(Alert::NoApplicationProtocol)) => OTHER_ALPN,
        (
            _,
            Error::AlertReceived(Alert::ProtocolVersion)
            | Error::PeerIncompatible(
                Incompatible::SupportedVersionsExtensionRequired
                | Incompatible::Tls12NotOffered
                | Incompatible::Tls12NotOfferedOrEnabled
                | Incompatible::ServerDoesNotSupportTls12Or13
                | Incompatible::ServerTlsVersionIsDisabledByOurConfig,
            ),
        ) => "no version of TLS lies within minVersion and maxVersion of both ends (tls.options)",
        _ => return None,
    })
}

/// The same over QUIC.
pub(super) const GIVE_THE_CERTIFICATE: &str =
    "give the server's certificate, or its CA, as tls.caFile, or its fingerprint as tls.fingerprint";
pub(super) const WANTS_CERTIFICATE: &str = "the server wants a certificate: tls.certFile and keyFile";
pub(super) const TAKES_NO_SUCH_CERTIFICATE: &str = "the server does not take the certificate of tls.certFile";
pub(super) const SHOWS_NO_CERTIFICATE: &str =
    "the client shows no certificate: tls.certFile and keyFile of its dialer";
pub(super) const SHOWS_A_STRANGE_CERTIFICATE: &str =
    "no CA in tls.caFile has signed the client's certificate, and it is none of them itself";
pub(super) const DISTRUSTED: &str = "the client does not trust this certificate";
pub(super) const OTHER_ALPN: &str = "is tls.options.alpn the same at both ends?";
