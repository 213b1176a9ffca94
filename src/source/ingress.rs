//! An ingress that asks one of GOST's plugins before its own rules.

use super::plugin::{Plugin, SetRule, Settings, Trouble};
use crate::addr::{Host, HostPort};
use crate::channel::tls::TlsError;
use crate::route::ingress::{Rules, parse_endpoint};
use crate::route::{
    Announcement, Answer, Decision, Endpoint, Ingress, Protocol, Request, RouteError, Verdict,
};
use std::sync::Arc;
use tracing::debug;
use uuid::Uuid;

/// Longest part of an answer that an error shows.
const MAX_SHOWN: usize = 100;

/// `onError`: what a failure of the plugin means for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// As if it had no opinion, which is what GOST does.
    Next,
    /// The request fails.
    Refuse,
}

/// Asks the plugin, and then the rules.
#[derive(Debug, Clone)]
pub struct Remote(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plugin: Plugin,
    at: String,
    rule: Arc<str>,
    on_error: OnError,
    rules: Rules,
    trouble: Trouble,
}

impl Remote {
    /// Reads the files that the settings name.
    pub fn new(name: &str, settings: &Settings, on_error: OnError, rules: Rules) -> Result<Self, TlsError> {
        let at = settings.at.to_string();
        Ok(Self(Arc::new(Inner {
            plugin: Plugin::new(settings)?,
            trouble: Trouble::new(format!("ingress {name:?}"), at.clone()),
            rule: format!("plugin {at}").into(),
            at,
            on_error,
            rules,
        })))
    }
}

impl Ingress for Remote {
    fn resolve(&self, request: &Request<'_>) -> Answer<Endpoint> {
        if request.hostname.is_empty() {
            return self.0.rules.resolve(request);
        }
        let (inner, request) = (Arc::clone(&self.0), request.to_owned());
        Answer::Later(Box::pin(async move {
            let request = request.request();
            match inner.ask(&request).await {
                Some(decision) => decision,
                None => inner.rules.resolve(&request).wait().await,
            }
        }))
    }

    fn announce(&self, name: &Host, tunnel: Uuid, service: &str) -> Option<Announcement> {
        let (inner, name, service) = (Arc::clone(&self.0), name.clone(), service.to_owned());
        Some(Box::pin(async move {
            let endpoint = tunnel.to_string();
            let told = inner.plugin.set_rule(SetRule {
                service: &service,
                host: name.as_str(),
                endpoint: &endpoint,
            });
            // Many plugins keep no names; nobody waits for this one.
            match told.await {
                Ok(taken) => {
                    debug!(plugin = inner.at, host = %name, %tunnel, taken, "plugin was told a name")
                }
                Err(error) => {
                    debug!(plugin = inner.at, host = %name, %tunnel, error, "plugin was not told a name")
                }
            }
        }))
    }
}

impl Inner {
    /// What the plugin decides; `None`: the rules are asked.
    async fn ask(&self, request: &Request<'_>) -> Option<Decision<Endpoint>> {
        let answer = self.plugin.rule(&asked(request), request.service).await;
        let endpoint = answer.and_then(|text| match text.trim() {
            "" => Ok(None),
            text => parse_endpoint(text).map(Some).ok_or_else(|| {
                let shown: String = text.chars().take(MAX_SHOWN).collect();
                format!("endpoint {shown:?} is no tunnel ID")
            }),
        });
        self.trouble.tell(endpoint.as_ref().err());
        match endpoint {
            Ok(None) => None,
            Ok(Some((tunnel, private))) => {
                let private = private || self.rules.is_private(&request.hostname, tunnel);
                Some(Ok(Verdict::Use(Endpoint { tunnel, private, rule: Arc::clone(&self.rule) })))
            }
            Err(_) if self.on_error == OnError::Next => None,
            Err(error) => Some(Err(RouteError(format!("plugin {}: {error}", self.at)))),
        }
    }
}

/// The host as GOST asks for it: with the port that was asked for, where one is known.
fn asked(request: &Request<'_>) -> String {
    let port = match (request.extra.port, request.protocol) {
        (0, Protocol::Http1 | Protocol::Http2) => 80,
        (0, Protocol::Tls | Protocol::Quic) => 443,
        (port, _) => port,
    };
    match port {
        0 => request.hostname.to_string(),
        port => HostPort::new(request.hostname.clone(), port).to_string(),
    }
}
