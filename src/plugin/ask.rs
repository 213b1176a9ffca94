//! Questions in the words of `route` to calls of a guest, and its answers back: every answer is checked here.

use super::admit::Openings;
use super::bind::{Asked, forwarder, ingress, one_line, types};
use super::cache::Decisions;
use super::pool::{CallError, Exports, Pool, Trial};
use crate::addr::{self, HostPort};
use crate::route::ingress::parse_endpoint;
use crate::route::{Endpoint, Hostnames, Node, OwnedRequest, Protocol, Refusal, Request, Verdict};
use std::pin::Pin;
use std::sync::Arc;

/// Bytes of a refusal's reason that are kept.
pub(super) const MAX_REASON: usize = 256;

/// The status of a refusal that names none that is one.
const FORBIDDEN: u16 = 403;

/// An answer that is there, or one that is worked out on another thread.
pub(super) enum Called<T> {
    Now(Result<T, CallError>),
    Later(Pin<Box<dyn Future<Output = Result<T, CallError>> + Send>>),
}

impl<T> Called<T> {
    pub(super) async fn wait(self) -> Result<T, CallError> {
        match self {
            Self::Now(answer) => answer,
            Self::Later(answer) => answer.await,
        }
    }
}

/// What an ingress plugin answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub(super) verdict: Verdict<Endpoint>,
    /// Public even where a rule says private.
    pub(super) exposed: bool,
}

/// Where a forwarder plugin sends a request.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Node(Arc<Node>),
    Address(HostPort),
}

/// One version of a plugin with the answers that it allowed to be given again.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) pool: Arc<Pool>,
    /// What decided, for the log.
    rule: Arc<str>,
    tunnels: Decisions<Tunnel>,
    targets: Decisions<Verdict<Target>>,
    pub(super) openings: Openings,
}

impl Generation {
    pub(super) fn new(pool: Pool, cached_decisions: usize) -> Arc<Self> {
        let (tunnels, targets) = (Decisions::new(cached_decisions), Decisions::new(cached_decisions));
        let openings = Openings::new(cached_decisions);
        let rule = format!("plugin {}", pool.shared.name).into();
        Arc::new(Self { pool: Arc::new(pool), rule, tunnels, targets, openings })
    }

    /// Asks which tunnel.
    pub(super) fn resolve(self: &Arc<Self>, request: &Request<'_>) -> Called<Tunnel> {
        if let Some(kept) = self.tunnels.get(request) {
            self.pool.stats.hit();
            return Called::Now(Ok(kept));
        }
        let asked = self.asked(request, &[]);
        let aside = match self.pool.ready(request.hostname.as_str()) {
            Ok(instance) => {
                let call = |exports: &Exports, store: &mut _| resolve(exports, store, request);
                let answer = self.pool.call(instance, request.hostname.as_str(), asked, call);
                return Called::Now(answer.and_then(|answer| self.tunnel(request, answer)));
            }
            Err(aside) => aside,
        };
        let place = self.pool.place(request.hostname.as_str());
        let (generation, request) = (Arc::clone(self), request.to_owned());
        Called::Later(Box::pin(async move {
            let question = request.clone();
            let call = move |exports: &Exports, store: &mut _| resolve(exports, store, &question.request());
            let answer = Arc::clone(&generation.pool).call_aside(aside, place, asked, call).await?;
            generation.tunnel(&request.request(), answer)
        }))
    }

    fn tunnel(&self, request: &Request<'_>, answer: ingress::Answer) -> Result<Tunnel, CallError> {
        let endpoint = |text: &str| {
            let bad = || CallError::BadAnswer(format!("tunnel ID {:?} is no UUID", one_line(text, 64)));
            parse_endpoint(text).ok_or_else(bad)
        };
        let endpoint = |text: &str| {
            endpoint(text).map(|(tunnel, private)| Endpoint { tunnel, private, rule: Arc::clone(&self.rule) })
        };
        let (verdict, exposed) = match answer.verdict {
            ingress::Verdict::Pass => (Verdict::Pass, false),
            ingress::Verdict::Tunnel(id) => (Verdict::Use(endpoint(&id)?), false),
            ingress::Verdict::Expose(id) => (Verdict::Use(endpoint(&id)?), true),
            ingress::Verdict::Refuse(refusal) => (Verdict::Refuse(refused(refusal)), false),
        };
        let tunnel = Tunnel { verdict, exposed };
        if let Some(reuse) = answer.reuse {
            self.tunnels.put(request, reuse.depends_on, reuse.ttl_ms, tunnel.clone());
        }
        Ok(tunnel)
    }

    /// Asks which of `nodes`.
    pub(super) fn select(
        self: &Arc<Self>,
        request: &Request<'_>,
        nodes: &[Arc<Node>],
    ) -> Called<Verdict<Target>> {
        if let Some(kept) = self.targets.get(request).filter(|kept| still_there(kept, nodes)) {
            self.pool.stats.hit();
            return Called::Now(Ok(kept));
        }
        let asked = self.asked(request, nodes);
        let aside = match self.pool.ready(request.hostname.as_str()) {
            Ok(instance) => {
                let call = |exports: &Exports, store: &mut _| select(exports, store, request, nodes);
                let answer = self.pool.call(instance, request.hostname.as_str(), asked, call);
                return Called::Now(answer.and_then(|answer| self.target(request, nodes, answer)));
            }
            Err(aside) => aside,
        };
        let place = self.pool.place(request.hostname.as_str());
        let (generation, request) = (Arc::clone(self), request.to_owned());
        let nodes: Arc<[Arc<Node>]> = nodes.into();
        Called::Later(Box::pin(async move {
            let (question, candidates): (OwnedRequest, _) = (request.clone(), Arc::clone(&nodes));
            let call = move |exports: &Exports, store: &mut _| {
                select(exports, store, &question.request(), &candidates)
            };
            let answer = Arc::clone(&generation.pool).call_aside(aside, place, asked, call).await?;
            generation.target(&request.request(), &nodes, answer)
        }))
    }

    fn target(
        &self,
        request: &Request<'_>,
        nodes: &[Arc<Node>],
        answer: forwarder::Answer,
    ) -> Result<Verdict<Target>, CallError> {
        let verdict = match answer.verdict {
            forwarder::Verdict::Pass => Verdict::Pass,
            forwarder::Verdict::Node(index) => {
                let node = usize::try_from(index).ok().and_then(|index| nodes.get(index));
                let bad = || format!("node {index} of {} (counted from 0)", nodes.len());
                Verdict::Use(Target::Node(Arc::clone(node.ok_or_else(|| CallError::BadAnswer(bad()))?)))
            }
            forwarder::Verdict::Address(text) => Verdict::Use(Target::Address(address(&text)?)),
            forwarder::Verdict::Refuse(refusal) => Verdict::Refuse(refused(refusal)),
        };
        if let Some(reuse) = answer.reuse {
            self.targets.put(request, reuse.depends_on, reuse.ttl_ms, verdict.clone());
        }
        Ok(verdict)
    }

    /// What the guest may ask for, if it imports the functions for that.
    fn asked(&self, request: &Request<'_>, nodes: &[Arc<Node>]) -> Asked {
        if !self.pool.compiled.roles.request_info {
            return Asked::default();
        }
        Asked {
            http: request.http.map(|http| http.shared()),
            extra: request.extra.clone(),
            nodes: nodes.to_vec(),
            now: None,
        }
    }
}

/// A question asked apart from traffic, by decision tables and the author's tools: the cache is left out of it.
impl Generation {
    /// Asks which tunnel, or which of `nodes` if there are any, at the time `now`.
    pub(super) fn try_out(&self, request: &Request<'_>, nodes: &[Arc<Node>], now: Option<u64>) -> Tried {
        let asked = Asked { now, ..self.asked(request, nodes) };
        if nodes.is_empty() {
            let call = |exports: &Exports, store: &mut Store| resolve(exports, store, request);
            let (answer, trial) = self.pool.try_out(asked, call);
            let reuse = answer.as_ref().ok().and_then(|answer| answer.reuse);
            let answer = answer.and_then(|answer| self.tunnel(request, answer));
            Tried { answer: answer.map(Answered::Tunnel), reuse, trial }
        } else {
            let call = |exports: &Exports, store: &mut Store| select(exports, store, request, nodes);
            let (answer, trial) = self.pool.try_out(asked, call);
            let reuse = answer.as_ref().ok().and_then(|answer| answer.reuse);
            let answer = answer.and_then(|answer| self.target(request, nodes, answer));
            Tried { answer: answer.map(Answered::Target), reuse, trial }
        }
    }
}

/// What came of asking apart from traffic.
pub(super) struct Tried {
    pub(super) answer: Result<Answered, CallError>,
    pub(super) reuse: Option<types::Reuse>,
    pub(super) trial: Trial,
}

/// What was answered apart from traffic.
#[derive(Debug, Clone)]
pub(super) enum Answered {
    Tunnel(Tunnel),
    Target(Verdict<Target>),
    Admission(Verdict<Hostnames>),
}

/// Whether a kept answer can be given to a request with these candidates.
fn still_there(kept: &Verdict<Target>, nodes: &[Arc<Node>]) -> bool {
    match kept {
        Verdict::Use(Target::Node(node)) => nodes.iter().any(|candidate| Arc::ptr_eq(candidate, node)),
        _ => true,
    }
}

pub(super) type Store = wasmtime::Store<super::bind::State>;
pub(super) type Returned<T> = wasmtime::Result<Result<T, String>>;

fn resolve(exports: &Exports, store: &mut Store, request: &Request<'_>) -> Returned<ingress::Answer> {
    let Some(guest) = &exports.ingress else { return Ok(Err("it decides no ingress".to_owned())) };
    let client = addr::written(request.client.ip());
    guest.call_resolve(store, question(request, &client))
}

fn select(
    exports: &Exports,
    store: &mut Store,
    request: &Request<'_>,
    nodes: &[Arc<Node>],
) -> Returned<forwarder::Answer> {
    let Some(guest) = &exports.forwarder else { return Ok(Err("it decides no forwarder".to_owned())) };
    let client = addr::written(request.client.ip());
    let nodes: Vec<_> = nodes
        .iter()
        .map(|node| forwarder::Node {
            name: &node.name,
            weight: node.weight,
            active: node.health.active(),
            failures: node.health.failures(),
        })
        .collect();
    guest.call_select(store, question(request, &client), &nodes)
}

fn question<'a>(request: &'a Request<'_>, client: &'a str) -> types::Request<'a> {
    types::Request {
        hostname: request.hostname.as_str(),
        protocol: match request.protocol {
            Protocol::Unknown => types::Protocol::Unknown,
            Protocol::Http1 => types::Protocol::Http1,
            Protocol::Http2 => types::Protocol::Http2,
            Protocol::Tls => types::Protocol::Tls,
            Protocol::Ssh => types::Protocol::Ssh,
            Protocol::Tcp => types::Protocol::Tcp,
            Protocol::Quic => types::Protocol::Quic,
            Protocol::Udp => types::Protocol::Udp,
        },
        client,
        client_port: request.client.port(),
        service: request.service,
    }
}

fn refused(refusal: types::Refusal) -> Refusal {
    let status = if (400..600).contains(&refusal.status) { refusal.status } else { FORBIDDEN };
    Refusal { status, reason: one_line(&refusal.reason, MAX_REASON) }
}

fn address(text: &str) -> Result<HostPort, CallError> {
    let bad = |why: &str| CallError::BadAnswer(format!("address {:?} {why}", one_line(text, 64)));
    let address = HostPort::parse(text, 0).map_err(|e| bad(&format!("is none: {e}")))?;
    if address.port == 0 || address.host.is_empty() { Err(bad("lacks host or port")) } else { Ok(address) }
}
