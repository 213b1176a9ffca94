//! Certificates by ACME (RFC 8555): asked for when there is none, renewed in time, kept in a folder.
//!
//! Who has a name is proved by HTTP-01 (an answer to a plain request) or TLS-ALPN-01 (a certificate in a handshake, RFC 8737);
//! both are given by `terminate`, wherever the question arrives.

mod order;
mod storage;

use crate::addr::Host;
use crate::channel::tls;
use crate::channel::tls::by_name::{Certified, Issued};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use instant_acme::{Account, AccountBuilder, ChallengeType};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use storage::{Storage, Stored};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// `handler.tls.acme`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `hosts`: one certificate each.
    pub hosts: Vec<Host>,
    /// `email`: where the ACME server may write to.
    pub email: Option<String>,
    /// `directory`: the server's URL.
    pub directory: String,
    /// `storage`: the folder for account and certificates.
    pub storage: PathBuf,
    /// `caFile`: who signs the server's own certificate; `None`: what the system trusts.
    pub ca: Option<PathBuf>,
    /// `challenge`; `None`: one after the other.
    pub challenge: Option<Challenge>,
}

/// How it is proved who has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// `tls-alpn-01`.
    TlsAlpn01,
    /// `http-01`.
    Http01,
}

impl From<Challenge> for ChallengeType {
    fn from(challenge: Challenge) -> Self {
        match challenge {
            Challenge::TlsAlpn01 => Self::TlsAlpn01,
            Challenge::Http01 => Self::Http01,
        }
    }
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The folder cannot be used.
    #[error("{}: {error}", path.display())]
    Storage {
        /// What was to be read or written.
        path: PathBuf,
        /// What happened.
        error: String,
    },
    /// The server, or the way to it.
    #[error("{0}")]
    Server(String),
    /// The server has looked and found something else.
    #[error("{0}; does the name lead here, and is the port open to the internet?")]
    Refused(String),
    /// No answer.
    #[error("the ACME server took longer than {0:?}")]
    Timeout(Duration),
    /// A key or a request could not be made.
    #[error("{0}")]
    Made(#[from] rcgen::Error),
    /// What came is no certificate for the key.
    #[error("the ACME server sent what cannot be used: {0}")]
    Unusable(String),
}

impl From<instant_acme::Error> for AcmeError {
    fn from(error: instant_acme::Error) -> Self {
        // The outermost text alone often says no more than that a request failed.
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Server(text)
    }
}

/// For one certificate, from the order to the file; servers look at names within seconds.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);
/// After a failure, doubled each time; public servers take five failures of a name in an hour.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LAST_RETRY: Duration = Duration::from_secs(3600);
/// How long is slept at most: clocks are set, and machines sleep.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Where HTTP-01 asks.
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// Keeps certificates for some names.
#[derive(Debug)]
pub(crate) struct Acme {
    pub(crate) settings: Settings,
    storage: Storage,
    issued: Arc<Issued>,
    /// When something is to be done for each of the hosts.
    due: Vec<SystemTime>,
    /// Answers to HTTP-01, by token.
    tokens: Mutex<HashMap<String, String>>,
}

impl Acme {
    /// Makes the folder and takes what is in it.
    pub(crate) fn new(settings: &Settings) -> Result<Self, AcmeError> {
        let storage = Storage::open(&settings.storage, &settings.directory)?;
        let (issued, tokens) = (Arc::default(), Mutex::default());
        let mut acme = Self { settings: settings.clone(), storage, issued, due: Vec::new(), tokens };
        acme.due = settings.hosts.iter().map(|host| acme.stored(host)).collect();
        Ok(acme)
    }

    /// Takes what is stored for a host, if that is still good; when it is to be renewed.
    fn stored(&self, host: &Host) -> SystemTime {
        match self.storage.load(host) {
            Ok(Some(stored)) => return self.take(host, &stored),
            Ok(None) => {}
            Err(error) => {
                let host = host.as_str();
                warn!(host, %error, "stored certificate not usable: a new one is asked for");
            }
        }
        SystemTime::now()
    }

    /// Shows this certificate from now on; when it is to be renewed.
    fn take(&self, host: &Host, stored: &Stored) -> SystemTime {
        self.issued.insert(host.as_str(), &stored.certified);
        stored.renew_at()
    }

    /// The certificates there are.
    pub(crate) fn issued(&self) -> &Arc<Issued> {
        &self.issued
    }

    /// Whether this name has a certificate, or will have one.
    pub(crate) fn knows(&self, host: &Host) -> bool {
        self.settings.hosts.contains(host)
    }

    /// The answer to HTTP-01, if the server waits for one.
    pub(crate) fn answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(WELL_KNOWN)?;
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// Keeps all certificates fresh until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let name = |(host, due): (&Host, &SystemTime)| Name { host: host.clone(), due: *due, failures: 0 };
        let mut names: Vec<_> = self.settings.hosts.iter().zip(&self.due).map(name).collect();
        let keep = async {
            loop {
                let mut wait = LOOK_EVERY;
                for name in &mut names {
                    name.keep(&self).await;
                    wait = wait.min(name.due.duration_since(SystemTime::now()).unwrap_or_default());
                }
                sleep(wait).await;
            }
        };
        tokio::select! {
            () = keep => {}
            () = stop.cancelled() => {}
        }
    }

    async fn account(&self) -> Result<Account, AcmeError> {
        let builder = match &self.settings.ca {
            Some(ca) => trusting(ca)?,
            None => Account::builder()?,
        };
        order::account(builder, &self.settings, &self.storage).await
    }
}

/// The library's own way takes the first certificate of a file alone, and refuses a server that shows it itself.
fn trusting(ca: &Path) -> Result<AccountBuilder, AcmeError> {
    let config = tls::trusting(ca).map_err(|error| AcmeError::Server(error.to_string()))?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    let client = Client::builder(TokioExecutor::new()).build(connector.enable_http1().enable_http2().build());
    Ok(Account::builder_with_http(Box::new(client)))
}

/// One name and when something is to be done for it.
struct Name {
    host: Host,
    due: SystemTime,
    failures: u32,
}

impl Name {
    async fn keep(&mut self, acme: &Acme) {
        if SystemTime::now() < self.due {
            return;
        }
        match self.obtain(acme).await {
            Ok(due) => {
                self.failures = 0;
                self.due = due;
                info!(host = self.host.as_str(), directory = acme.settings.directory, "certificate issued");
            }
            Err(error) => {
                let wait = retry_after(self.failures);
                self.failures += 1;
                self.due = SystemTime::now() + wait;
                error!(host = self.host.as_str(), %error, again_in = wait.as_secs(), "no certificate");
            }
        }
    }

    async fn obtain(&self, acme: &Acme) -> Result<SystemTime, AcmeError> {
        let challenge = acme.settings.challenge.unwrap_or(match self.failures % 2 {
            0 => Challenge::TlsAlpn01,
            _ => Challenge::Http01,
        });
        let obtained = async {
            let account = acme.account().await?;
            order::obtain(&account, acme, &self.host, challenge).await
        };
        let made = timeout(ORDER_TIMEOUT, obtained).await;
        let (chain, key) = made.map_err(|_| AcmeError::Timeout(ORDER_TIMEOUT))??;
        let stored = acme.storage.save(&self.host, &chain, &key)?;
        Ok(acme.take(&self.host, &stored))
    }
}

/// The other challenge is tried at once; then ever longer, and not by all at the same time.
fn retry_after(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::from_secs(1);
    }
    let wait = FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(LAST_RETRY);
    wait.mul_f64(0.75 + fastrand::f64() / 2.0)
}

impl Acme {
    /// Answers a challenge for as long as the result lives.
    fn lay(&self, host: &Host, token: &str, answer: Laid) -> Laying<'_> {
        match answer {
            Laid::Http(text) => {
                self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), text);
            }
            Laid::Tls(certified) => self.issued.challenge(host.as_str(), Some(&certified)),
        }
        Laying { acme: self, host: host.clone(), token: token.to_owned() }
    }
}

/// The answer to a challenge.
enum Laid {
    Http(String),
    Tls(Certified),
}

/// Takes the answer away again.
struct Laying<'a> {
    acme: &'a Acme,
    host: Host,
    token: String,
}

impl Drop for Laying<'_> {
    fn drop(&mut self) {
        self.acme.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
        self.acme.issued.challenge(self.host.as_str(), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_an_hour() {
        assert_eq!(retry_after(0), Duration::from_secs(1));
        for (failures, least, most) in [(1, 45, 75), (2, 90, 150), (6, 1440, 2400), (40, 2700, 4500)] {
            let wait = retry_after(failures).as_secs();
            assert!((least..=most).contains(&wait), "{failures}: {wait}");
        }
    }
}
