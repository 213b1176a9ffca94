//! Plugins where decisions are asked for: an ingress that asks plugins before its own rules, a forwarder that asks one, a tunnel
//! server that asks them who may come in.
//!
//! What becomes of a plugin's failure, of a private rule and of an address that is no candidate is settled here.

mod admission;

pub use admission::BoundAdmission;

use super::ask::{Called, Generation, Target, Tunnel};
use super::pool::CallError;
use super::{Folder, Plugin};
use crate::addr::{HostPort, Network};
use crate::route::hosts::HostPattern;
use crate::route::ingress::Rules;
use crate::route::{
    Answer, Choice, Decision, Endpoint, Forwarder, Ingress, Node, Request, RouteError, Verdict,
};
use std::sync::Arc;

/// `onError`: what a failure of the plugin means for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// As if it had no opinion.
    Next,
    /// The request fails.
    Refuse,
    /// The last version before that has ever answered is asked; where there is none, or it fails too, the request fails.
    LastGood,
}

/// A plugin bound to an ingress or a forwarder.
#[derive(Debug, Clone)]
pub struct Binding {
    plugin: Arc<Plugin>,
    on_error: OnError,
}

impl Binding {
    /// Binds a plugin; where it has no file yet, its calls fail until there is one.
    pub fn new(plugin: Arc<Plugin>, on_error: OnError) -> Self {
        if on_error == OnError::LastGood {
            plugin.keep_previous();
        }
        Self { plugin, on_error }
    }

    /// Asks the version in use, and after its failure the one before, if that is what `onError` says. `own` makes the same
    /// question once more, for an answer that comes later.
    fn ask<T: Send + 'static>(
        &self,
        ask: impl Fn(&Arc<Generation>) -> Called<T>,
        own: impl FnOnce() -> Question<T>,
    ) -> Called<Option<T>> {
        let current = self.plugin.current.load();
        let Some(current) = &*current else {
            return Called::Now(self.settle(Err(self.absent())));
        };
        match ask(current) {
            Called::Now(Err(error)) => match self.fallback(&error) {
                Some(previous) => self.settled(ask(&previous)),
                None => Called::Now(self.settle(Err(error))),
            },
            Called::Later(answer) if self.on_error == OnError::LastGood => {
                let (binding, again) = (self.clone(), own());
                Called::Later(Box::pin(async move {
                    let answer = answer.await;
                    let previous = answer.as_ref().err().and_then(|error| binding.fallback(error));
                    match previous {
                        Some(previous) => binding.settle(again(&previous).wait().await),
                        None => binding.settle(answer),
                    }
                }))
            }
            called => self.settled(called),
        }
    }

    /// The version to ask after a failure.
    fn fallback(&self, error: &CallError) -> Option<Arc<Generation>> {
        let previous = (self.on_error == OnError::LastGood).then(|| self.plugin.previous.load_full())??;
        self.plugin.failed(error);
        Some(previous)
    }

    fn settled<T: Send + 'static>(&self, called: Called<T>) -> Called<Option<T>> {
        match called {
            Called::Now(answer) => Called::Now(self.settle(answer)),
            Called::Later(answer) => {
                let binding = self.clone();
                Called::Later(Box::pin(async move { binding.settle(answer.await) }))
            }
        }
    }

    /// What an answer or failure means: `None` is no opinion.
    fn settle<T>(&self, answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => {
                self.plugin.failed(&error);
                if self.on_error == OnError::Next { Ok(None) } else { Err(error) }
            }
        }
    }

    fn absent(&self) -> CallError {
        CallError::Returned("not loaded: no file of that name was taken into use".to_owned())
    }

    fn error(&self, error: &CallError) -> RouteError {
        RouteError(format!("plugin {:?}: {error}", self.plugin.name()))
    }
}

/// A question that can be asked again.
type Question<T> = Box<dyn Fn(&Arc<Generation>) -> Called<T> + Send + Sync>;

/// An ingress that asks plugins in their order, and then its own rules.
#[derive(Debug, Clone)]
pub struct Chain(Arc<Links>);

#[derive(Debug)]
struct Links {
    plugins: Plugins,
    rules: Rules,
}

/// Which plugins are asked.
#[derive(Debug)]
enum Plugins {
    /// One that the configuration names.
    Bound(Arc<[Binding]>),
    /// All of the folder that decide ingress, in file-name order.
    Folder(Arc<Folder>),
}

impl Chain {
    /// Asks the bound plugin first.
    pub fn bound(binding: Binding, rules: impl Into<Rules>) -> Self {
        Self(Arc::new(Links { plugins: Plugins::Bound([binding].into()), rules: rules.into() }))
    }

    /// Asks whatever lies in the folder first.
    pub fn folder(folder: Arc<Folder>, rules: impl Into<Rules>) -> Self {
        Self(Arc::new(Links { plugins: Plugins::Folder(folder), rules: rules.into() }))
    }
}

impl Ingress for Chain {
    fn resolve(&self, request: &Request<'_>) -> Answer<Endpoint> {
        match &self.0.plugins {
            Plugins::Bound(bindings) => Self::from(&self.0, bindings, 0, request),
            Plugins::Folder(folder) => {
                let bindings = folder.ingress();
                if bindings.is_empty() {
                    return self.0.rules.resolve(request);
                }
                Self::from(&self.0, &bindings, 0, request)
            }
        }
    }
}

impl Chain {
    /// Asks from the given place on.
    fn from(
        links: &Arc<Links>,
        bindings: &Arc<[Binding]>,
        first: usize,
        request: &Request<'_>,
    ) -> Answer<Endpoint> {
        for (place, binding) in bindings.iter().enumerate().skip(first) {
            let ask = |generation: &Arc<Generation>| generation.resolve(request);
            let own = || -> Question<_> {
                let request = request.to_owned();
                Box::new(move |generation| generation.resolve(&request.request()))
            };
            match binding.ask(ask, own) {
                Called::Now(answer) => {
                    if let Some(decision) = links.decision(binding, answer, request) {
                        return Answer::Now(decision);
                    }
                }
                Called::Later(answer) => {
                    let (links, bindings, request) =
                        (Arc::clone(links), Arc::clone(bindings), request.to_owned());
                    return Answer::Later(Box::pin(async move {
                        let answer = answer.await;
                        match links.decision(&bindings[place], answer, &request.request()) {
                            Some(decision) => decision,
                            None => {
                                let rest = Self::from(&links, &bindings, place + 1, &request.request());
                                rest.wait().await
                            }
                        }
                    }));
                }
            }
        }
        links.rules.resolve(request)
    }
}

impl Links {
    /// The decision that a plugin's answer makes; `None`: the next one is asked.
    fn decision(
        &self,
        binding: &Binding,
        answer: Result<Option<Tunnel>, CallError>,
        request: &Request<'_>,
    ) -> Option<Decision<Endpoint>> {
        let tunnel = match answer {
            Ok(None) => return None,
            Ok(Some(tunnel)) => tunnel,
            Err(error) => return Some(Err(binding.error(&error))),
        };
        match tunnel.verdict {
            Verdict::Pass => None,
            Verdict::Use(endpoint) => {
                let rule = !tunnel.exposed && self.rules.is_private(&request.hostname, endpoint.tunnel);
                Some(Ok(Verdict::Use(Endpoint { private: endpoint.private || rule, ..endpoint })))
            }
            Verdict::Refuse(refusal) => Some(Ok(Verdict::Refuse(refusal))),
        }
    }
}

/// `allowAddresses`: where a forwarder plugin may send requests beside the candidates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {
    networks: Vec<Network>,
    hosts: Vec<HostPattern>,
}

impl Allow {
    /// Whether nothing is permitted.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.hosts.is_empty()
    }

    /// Reads entries such as `10.0.0.0/8`, `192.0.2.1` or `*.svc.example`; the error is the entry that is none.
    pub fn parse<'t>(entries: impl IntoIterator<Item = &'t str>) -> Result<Self, String> {
        let mut allow = Self::default();
        for entry in entries {
            if let Ok(network) = entry.parse() {
                allow.networks.push(network);
                continue;
            }
            let pattern = HostPattern::from_filter(entry).ok().flatten();
            allow.hosts.push(pattern.ok_or_else(|| entry.to_owned())?);
        }
        Ok(allow)
    }

    /// Whether an address may be used. A name is judged as a name: what it resolves to is its owner's business.
    pub fn permits(&self, address: &HostPort) -> bool {
        match address.host.ip() {
            Some(ip) => self.networks.iter().any(|network| network.contains(ip)),
            None => self.hosts.iter().any(|pattern| pattern.matches(&address.host)),
        }
    }
}

/// A forwarder that asks a plugin.
#[derive(Debug)]
pub struct BoundForwarder {
    binding: Binding,
    allow: Arc<Allow>,
}

impl BoundForwarder {
    /// Asks `binding`, whose addresses must be in `allow`.
    pub fn new(binding: Binding, allow: Allow) -> Self {
        Self { binding, allow: Arc::new(allow) }
    }
}

impl Forwarder for BoundForwarder {
    fn select(&self, request: &Request<'_>, candidates: &[Arc<Node>]) -> Answer<Choice> {
        let ask = |generation: &Arc<Generation>| generation.select(request, candidates);
        let own = || -> Question<_> {
            let (request, candidates): (_, Arc<[_]>) = (request.to_owned(), candidates.into());
            Box::new(move |generation| generation.select(&request.request(), &candidates))
        };
        match self.binding.ask(ask, own) {
            Called::Now(answer) => Answer::Now(choice(&self.binding, &self.allow, answer, candidates)),
            Called::Later(answer) => {
                let (binding, allow) = (self.binding.clone(), Arc::clone(&self.allow));
                let candidates: Arc<[Arc<Node>]> = candidates.into();
                Answer::Later(Box::pin(async move { choice(&binding, &allow, answer.await, &candidates) }))
            }
        }
    }
}

fn choice(
    binding: &Binding,
    allow: &Allow,
    answer: Result<Option<Verdict<Target>>, CallError>,
    candidates: &[Arc<Node>],
) -> Decision<Choice> {
    match answer {
        Ok(None | Some(Verdict::Pass)) => Ok(Verdict::Pass),
        Ok(Some(Verdict::Refuse(refusal))) => Ok(Verdict::Refuse(refusal)),
        Ok(Some(Verdict::Use(Target::Node(node)))) => {
            let place = candidates.iter().position(|candidate| Arc::ptr_eq(candidate, &node));
            Ok(place.map_or(Verdict::Pass, |place| Verdict::Use(Choice::Candidate(place))))
        }
        Ok(Some(Verdict::Use(Target::Address(address)))) if allow.permits(&address) => {
            Ok(Verdict::Use(Choice::Address(address)))
        }
        Ok(Some(Verdict::Use(Target::Address(address)))) => {
            let error = CallError::BadAnswer(format!("address {address} is not in allowAddresses"));
            match binding.settle::<()>(Err(error)) {
                Ok(_) => Ok(Verdict::Pass),
                Err(error) => Err(binding.error(&error)),
            }
        }
        Err(error) => Err(binding.error(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_allowed_by_network_and_by_name() {
        let allow =
            Allow::parse(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "*.svc.example", "one.example"])
                .unwrap();
        for (address, expected) in [
            ("10.1.2.3:80", true),
            ("11.1.2.3:80", false),
            ("192.0.2.7:1", true),
            ("192.0.2.8:1", false),
            ("[2001:db8:1::1]:443", true),
            ("[2001:db9::1]:443", false),
            ("[::ffff:10.1.1.1]:80", true),
            ("a.svc.example:80", true),
            ("badsvc.example:80", false),
            ("one.example:80", true),
            ("localhost:80", false),
        ] {
            assert_eq!(allow.permits(&HostPort::parse(address, 0).unwrap()), expected, "{address}");
        }
        assert!(!Allow::default().permits(&HostPort::parse("10.0.0.1:80", 0).unwrap()));
        assert!(Allow::parse(["0.0.0.0/0"]).unwrap().permits(&HostPort::parse("1.2.3.4:5", 0).unwrap()));
        for entry in ["10.0.0.0/33", "10.0.0.0/x", "*", "", "a b", "x.example/8"] {
            assert_eq!(Allow::parse([entry]), Err(entry.to_owned()));
        }
    }
}
