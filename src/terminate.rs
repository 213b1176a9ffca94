//! TLS that ends here: visitors who ask for a name with a certificate of ours are served what is inside, all others are passed
//! on as they came.
//!
//! Plain HTTP to such a name can be sent to HTTPS. What is done with the bytes inside is `forward`'s and `entrypoint`'s business.

use crate::acme::{self, Acme};
use crate::addr::Host;
pub use crate::channel::tls::by_name::Certificate;
use crate::channel::tls::by_name::{self, ByName, CHALLENGE};
use crate::channel::tls::{Options, TlsError};
use crate::http::Asked;
use crate::http::failure::{Failure, Own};
use crate::net::Conn;
use crate::wire::tls::ClientHello;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// `handler.tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `certificates`.
    pub certificates: Vec<Certificate>,
    /// `acme`: further ones.
    pub acme: Option<acme::Settings>,
    /// `options`.
    pub options: Options,
    /// `redirect`: the port of HTTPS to which plain HTTP is sent.
    pub redirect: Option<u16>,
    /// `handshakeTimeout`.
    pub handshake_timeout: Duration,
}

impl Settings {
    /// What is wrong with the options, before anything runs.
    pub fn check(&self) -> Result<(), TlsError> {
        by_name::check(&self.options)
    }

    /// The names for which TLS ends, `*.example.com` among them.
    pub fn names(&self) -> Vec<Box<str>> {
        let files =
            self.certificates.iter().filter_map(|certificate| by_name::names_in(&certificate.pair).ok());
        let asked_for = self.acme.iter().flat_map(|acme| &acme.hosts).map(|host| host.as_str().into());
        files.flatten().chain(asked_for).collect()
    }
}

/// A connection that ends with its handshake.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unserved {
    /// It came to nothing.
    #[error("{0}")]
    Handshake(io::Error),
    /// The visitor does not go on.
    #[error("no TLS handshake within {0:?} (tls.handshakeTimeout)")]
    Late(Duration),
    /// It has been asked for.
    #[error("there is no certificate for this name yet (tls.acme): an earlier line says why")]
    NoCertificate,
    /// It was an ACME server that looked who has this name, and all that it wanted.
    #[error("challenge of an ACME server")]
    Challenge,
}

impl Unserved {
    /// The word for logs and metrics.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Handshake(_) | Self::Late(_) => "bad_handshake",
            Self::NoCertificate => "no_certificate",
            Self::Challenge => "acme_challenge",
        }
    }
}

/// Ends the TLS of one handler's visitors.
#[derive(Debug)]
pub(crate) struct Terminator {
    by_name: ByName,
    acme: Option<Arc<Acme>>,
    settings: Settings,
}

impl Terminator {
    /// Reads the files. `acme` is what the settings of that name ask for.
    pub(crate) fn new(settings: &Settings, acme: Option<Arc<Acme>>) -> Result<Self, TlsError> {
        let issued = acme.as_ref().map(|acme| Arc::clone(acme.issued()));
        let by_name = ByName::new(&settings.certificates, &settings.options, issued)?;
        Ok(Self { by_name, acme, settings: settings.clone() })
    }

    /// The name that a visitor asks for, if TLS to it ends here.
    pub(crate) fn ends(&self, hello: &ClientHello) -> Option<Host> {
        hello.server_name.clone().filter(|name| self.serves(name))
    }

    /// Whether a name has a certificate, or will have one.
    fn serves(&self, name: &Host) -> bool {
        self.by_name.covers(name) || self.acme.as_ref().is_some_and(|acme| acme.knows(name))
    }

    /// The connection inside a connection whose first bytes are a ClientHello for this name.
    pub(crate) async fn accept(&self, conn: Conn, name: &Host) -> Result<Conn, Unserved> {
        let (client, local, via) = (conn.client, conn.local, conn.via.clone());
        let limit = self.settings.handshake_timeout;
        let accepted = timeout(limit, self.by_name.accept(conn.into_stream())).await;
        let stream = match accepted {
            Err(_) => return Err(Unserved::Late(limit)),
            Ok(Err(_)) if !self.by_name.covers(name) => return Err(Unserved::NoCertificate),
            Ok(Err(error)) => return Err(Unserved::Handshake(error)),
            Ok(Ok(stream)) if stream.alpn() == Some(CHALLENGE) => return Err(Unserved::Challenge),
            Ok(Ok(stream)) => Box::new(stream),
        };
        Ok(Conn { stream, prefix: Bytes::new(), client, local, via, secure: true })
    }

    /// What a plain request gets from us and not from a target.
    pub(crate) fn answer(&self, asked: &Asked<'_>) -> Option<Failure> {
        let path = asked.parts.path();
        if let Some(text) = self.acme.as_ref().and_then(|acme| acme.answer(path)) {
            return Some(Failure::Own(Own { status: 200, outcome: "acme_challenge", field: None, text }));
        }
        let port = self.settings.redirect.filter(|_| !asked.secure)?;
        let host = &asked.authority?.host;
        if !path.starts_with('/') || !self.serves(host) {
            return None;
        }
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let query = asked.parts.query().map(|query| format!("?{query}")).unwrap_or_default();
        let location = format!("https://{host}{port}{path}{query}");
        Some(Failure::Own(Own::redirect(location)))
    }
}
