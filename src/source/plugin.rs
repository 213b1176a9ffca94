//! GOST's plugins: processes that are asked by HTTP or gRPC (sections 2.6 and 7.5 of the wire specification).
//!
//! What a call asks and answers is here; what an answer means, and what becomes of a failure, is the caller's.

use super::url::{Url, escaped};
use super::{Hidden, grpc, http};
use crate::addr::HostPort;
use crate::channel::tls::{self, TlsError};
use crate::wire::unary::Message;
use ::http::HeaderValue;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

/// Calls of one plugin at once; more wait for their turn, under the deadline that they have. Without a bound a slow plugin would
/// make a connection for each visitor.
const MAX_CALLS: usize = 256;
/// Connections to a plugin that are kept for the next calls.
const MAX_IDLE: usize = 32;
/// Most that an answer holds.
const MAX_ANSWER: usize = 64 * 1024;

/// Failures that come sooner after one that was told are counted only: strangers can make a plugin fail by what they ask for.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// `plugin` with type `http` or `grpc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `type` and `addr`.
    pub at: At,
    /// `token`.
    pub token: Option<Hidden>,
    /// `timeout`: for one call, with what has to be connected for it.
    pub timeout: Duration,
    /// `tls`: with `grpc`, TLS at all.
    pub tls: Option<tls::ClientSettings>,
}

/// Where a plugin listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// `http`.
    Http(Url),
    /// `grpc`.
    Grpc(HostPort),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => url.fmt(f),
            Self::Grpc(addr) => write!(f, "grpc {addr}"),
        }
    }
}

/// Asks one plugin.
#[derive(Debug)]
pub(crate) struct Plugin {
    client: Client,
    timeout: Duration,
    turns: Semaphore,
}

#[derive(Debug)]
enum Client {
    Http { client: http::Client, authorization: Option<String> },
    Grpc(grpc::Client),
}

/// A user who wants to come in.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Credentials<'a> {
    pub(crate) service: &'a str,
    pub(crate) username: &'a str,
    pub(crate) password: &'a str,
    /// The address he comes from.
    pub(crate) client: &'a str,
}

/// A name that a tunnel answers to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct SetRule<'a> {
    pub(crate) service: &'a str,
    pub(crate) host: &'a str,
    pub(crate) endpoint: &'a str,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Rule {
    endpoint: String,
}

/// The answer to what is either so or not.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Done {
    ok: bool,
}

impl Plugin {
    /// Reads the files that `tls` names.
    pub(crate) fn new(settings: &Settings) -> Result<Self, TlsError> {
        let Settings { at, token, timeout, tls } = settings;
        let token = token.as_ref().map(|token| token.0.as_str());
        if let Some(tls) = tls {
            tls::warn_of_no_verification(&at.to_string(), tls);
        }
        let client = match at {
            At::Http(url) => Client::Http {
                client: http::Client::new(url.clone(), tls.as_ref(), *timeout, MAX_ANSWER, MAX_IDLE)?,
                authorization: token.map(|token| format!("Bearer {token}")),
            },
            At::Grpc(addr) => {
                // What cannot stand in a field was refused when the configuration was checked.
                let token = token.and_then(|token| HeaderValue::from_str(token).ok());
                Client::Grpc(grpc::Client::new(addr.clone(), tls.as_ref(), token, *timeout)?)
            }
        };
        Ok(Self { client, timeout: *timeout, turns: Semaphore::new(MAX_CALLS) })
    }

    /// The endpoint of a host, which has its port with it; empty where there is none.
    pub(crate) async fn rule(&self, host: &str, service: &str) -> Result<String, String> {
        self.limited(async {
            match &self.client {
                Client::Http { client, authorization } => {
                    let query = format!("host={}&service={}", escaped(host), escaped(service));
                    let authorization = authorization.as_deref();
                    let ask = http::Ask { query, authorization, json: true, ..http::Ask::default() };
                    json::<Rule>(&client.ask(&ask).await?).map(|rule| rule.endpoint)
                }
                Client::Grpc(client) => {
                    let message = Message::default().text(1, host).text(2, service);
                    let fields = client.call("/proto.Ingress/GetRule", message).await?;
                    fields.text(1).map(str::to_owned).map_err(|error| error.to_string())
                }
            }
        })
        .await
    }

    /// Whether the plugin takes a name that it may be asked for later.
    pub(crate) async fn set_rule(&self, rule: SetRule<'_>) -> Result<bool, String> {
        let SetRule { service, host, endpoint } = rule;
        let message = || Message::default().text(1, host).text(2, endpoint).text(3, service);
        self.limited(self.done("PUT", &rule, "/proto.Ingress/SetRule", message)).await
    }

    /// Whether these are a user's name and password.
    pub(crate) async fn knows(&self, credentials: Credentials<'_>) -> Result<bool, String> {
        let Credentials { service, username, password, client } = credentials;
        let message =
            || Message::default().text(1, username).text(2, password).text(3, client).text(4, service);
        self.limited(self.done("POST", &credentials, "/proto.Authenticator/Authenticate", message)).await
    }

    /// A call that is answered by yes or no.
    async fn done(
        &self,
        method: &str,
        body: &(impl Serialize + Sync),
        call: &str,
        message: impl FnOnce() -> Message + Send,
    ) -> Result<bool, String> {
        match &self.client {
            Client::Http { client, authorization } => {
                let body = serde_json::to_string(body).map_err(|error| error.to_string())?;
                let (query, authorization) = (String::new(), authorization.as_deref());
                let ask = http::Ask { method, query, authorization, json: true, body: Some(body) };
                json::<Done>(&client.ask(&ask).await?).map(|answer| answer.ok)
            }
            Client::Grpc(client) => {
                let fields = client.call(call, message()).await?;
                fields.flag(1).map_err(|error| error.to_string())
            }
        }
    }

    /// One call, in its turn and in its time.
    async fn limited<T>(&self, call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let turn = async {
            // The semaphore is never closed.
            let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
            call.await
        };
        timeout(self.timeout, turn).await.unwrap_or_else(|_| {
            if let Client::Grpc(client) = &self.client {
                client.forget();
            }
            Err(format!("no answer within {:?} (timeout)", self.timeout))
        })
    }
}

/// What the log is told of a plugin's failures: that they began, how many there were, and that they are over.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// Who asks it.
    asking: String,
    plugin: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    /// That it fails was told, and not yet that it does no more.
    failing: bool,
    failures: u64,
}

impl Trouble {
    pub(crate) fn new(asking: String, plugin: String) -> Self {
        Self { asking, plugin, state: Mutex::default() }
    }

    /// After each call.
    pub(crate) fn tell(&self, error: Option<&String>) {
        let Self { asking, plugin, .. } = self;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) => {
                state.failures += 1;
                if state.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                    (state.told, state.failing) = (Some(Instant::now()), true);
                    warn!(asking, plugin, error, failures = state.failures, "plugin fails");
                }
            }
            None if state.failing => {
                state.failing = false;
                info!(asking, plugin, failures = state.failures, "plugin answers again");
            }
            None => {}
        }
    }
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("the answer is not the JSON expected: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Response;
    use bytes::Bytes;
    use tokio::net::TcpListener;

    /// A connection on which nothing comes any more is left for a new one.
    #[tokio::test]
    async fn a_connection_that_has_fallen_silent_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = HostPort::from(listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let silent = listener.accept().await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"\0\0\0\0\x03\x0a\x01x"), true).unwrap();
            assert!(connection.accept().await.is_none());
            drop(silent);
        });
        let (at, timeout) = (At::Grpc(addr), Duration::from_millis(500));
        let plugin = Plugin::new(&Settings { at, token: None, timeout, tls: None }).unwrap();
        assert_eq!(plugin.rule("a", "s").await, Err("no answer within 500ms (timeout)".to_owned()));
        assert_eq!(plugin.rule("a", "s").await, Ok("x".to_owned()));
        drop(plugin);
        serving.await.unwrap();
    }

    #[test]
    fn answers_may_hold_more_than_is_asked() {
        assert_eq!(json::<Rule>(b"{\"endpoint\":\"x\",\"more\":1}").unwrap().endpoint, "x");
        assert_eq!(json::<Rule>(b"{}").unwrap().endpoint, "");
        assert!(json::<Rule>(b"{\"endpoint\":1}").is_err());
    }
}
