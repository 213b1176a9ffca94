//! `-L` to services: one for each port.

use super::object::{self, Object, list, text};
use super::query::Query;
use super::url::{self, AUTO, Piece, Url};
use super::words::{self, SERVICE};
use super::{Draft, lift};
use crate::config::nodes::Place;
use crate::config::problem::Severity;
use crate::config::tree::Tree;

/// Most ports of one argument: each is a listener, or a node, with descriptors of its own. `:1-65535` would be a slip.
const MAX_PORTS: usize = 16_384;

/// Listeners that are reached through a chain, instead of connecting through it.
const REVERSE: &[&str] = &["rtcp", "rudp", "runix"];
/// Listeners whose address is a path.
const PATHS: &[&str] = &["unix", "runix", "serial"];
/// Listeners that have a handler of their own name for their targets.
const FORWARDING: &[&str] = &["tcp", "udp", "rtcp", "rudp", "tun", "tap", "dns", "unix", "runix", "serial"];
/// Handlers that have targets of their own, or none: a path does not make them handlers of another type.
const KEPT: &[&str] = &["relay", "whoami"];

const TLS: &[(&str, &[&str])] = &[
    ("certFile", &["tls.certFile", "certFile", "cert"]),
    ("keyFile", &["tls.keyFile", "keyFile", "key"]),
    ("caFile", &["tls.caFile", "caFile", "ca"]),
];
/// Keys that belong to the metadata of the service alone.
const OF_SERVICE: &[&str] = &["interface", "so_mark", "proxyProtocol", "netns", "netns.out"];

/// What all services of one argument have.
struct Common {
    handler: Piece,
    listener: Piece,
    auth: Option<Tree>,
    tls: Option<Tree>,
    selector: Option<Tree>,
}

/// Adds the services of an argument; what is wrong with it is reported. `chain`: what all -F together are.
pub(super) fn add(url: Url, chain: Option<&str>, draft: &mut Draft<'_, '_>) -> Option<()> {
    let (handler, listener) = words::halves(&url.scheme, &SERVICE, draft.problems)?;
    let start = url.scheme.at;
    let by_path = PATHS.contains(&&*listener.text) && url.host.text.is_empty();
    let (addrs, targets) = if by_path {
        (vec![url.path], Vec::new())
    } else {
        (ports(url.host, draft)?, targets(&url.path, draft)?)
    };
    let handler = forwarding(handler, &listener, !targets.is_empty(), draft)?;
    let mut query = Query::new(url.query, draft.problems);
    let auth = lift::auth(url.user, &mut query, draft);
    let tls = lift::tls(&mut query, TLS);
    let selector = lift::selector(&mut query);
    if let (Some(selector), true) = (&selector, targets.is_empty()) {
        let message = "a choice between targets, and there are none: left aside".to_owned();
        draft.problems.report(
            Severity::Warning,
            selector.at,
            "",
            message,
            "expected /TARGET behind the address",
        );
    }
    let common = Common { handler, listener, auth, tls, selector };
    let forwarders = divide(addrs.len(), targets, start, draft)?;
    for (addr, nodes) in addrs.into_iter().zip(forwarders) {
        let service = common.service(addr, nodes, query.clone(), chain, draft);
        draft.services.push(service);
    }
    Some(())
}

/// The handler that a scheme comes to, with targets or without.
fn forwarding(mut handler: Piece, listener: &Piece, targets: bool, draft: &Draft<'_, '_>) -> Option<Piece> {
    if targets && !KEPT.contains(&&*handler.text) {
        let own = FORWARDING.contains(&&*listener.text);
        handler.text = if own { listener.text.clone() } else { "forward".to_owned() };
    }
    if handler.text == AUTO {
        let message = "no handler is named: GOST's auto, which stands in, is not supported yet".to_owned();
        let help = "expected HANDLER+LISTENER://ADDRESS, such as tunnel://:8443 or relay+tls://:8443, or tcp://ADDRESS/TARGET";
        draft.problems.report(Severity::Error, handler.at, "", message, help);
        return None;
    }
    // The reference's other name for it.
    if handler.text == "forward" {
        handler.text = "tcp".to_owned();
    }
    Some(handler)
}

impl Common {
    fn service(
        &self,
        addr: Piece,
        nodes: Vec<Tree>,
        mut query: Query<'_, '_>,
        chain: Option<&str>,
        draft: &mut Draft<'_, '_>,
    ) -> Tree {
        let at = addr.at;
        let [handler_at, listener_at] = [self.handler.at, self.listener.at];
        let chain = chain.map(|name| text(handler_at, name));
        let (to_listener, to_handler) =
            if REVERSE.contains(&&*self.listener.text) { (chain, None) } else { (None, chain) };
        let retries = query.take(&["retries"]);
        let mut service = Object::new(handler_at).with("name", text(at, draft.service_name()));
        service = service.with_any("addr", Some(addr).filter(|addr| !addr.text.is_empty()).map(Tree::from));
        service = lift::admission(service, &mut query, draft);
        service = lift::references(service, &mut query);
        service = lift::limits(service, &mut query);
        let own = OF_SERVICE.iter().filter_map(|key| Some((*key, query.take(&[key])?))).collect();
        let [handler, listener, metadata] = query.metadata(["handler", "listener", "service"]);
        let handler = Object::new(handler_at)
            .with("type", self.handler.clone().into())
            .with_any("retries", retries.map(Tree::from))
            .with_any("auth", self.auth.clone())
            .with_any("chain", to_handler)
            .with_any("metadata", handler);
        let listener = Object::new(listener_at)
            .with("type", self.listener.clone().into())
            .with_any("chain", to_listener)
            .with_any("tls", self.tls.clone())
            .with_any("metadata", listener);
        service
            .with("handler", handler.tree())
            .with("listener", listener.tree())
            .with_any("forwarder", self.forwarder(nodes))
            .with_any("metadata", object::joined(metadata, own))
            .tree()
    }

    fn forwarder(&self, nodes: Vec<Tree>) -> Option<Tree> {
        let at = nodes.first()?.at;
        let forwarder = Object::new(at).with("nodes", list(at, nodes));
        Some(forwarder.with_any("selector", self.selector.clone()).tree())
    }
}

/// The targets of each of so many ports: all of them for a single one, a single one for all, or to each its own.
fn divide(ports: usize, targets: Vec<Piece>, at: Place, draft: &Draft<'_, '_>) -> Option<Vec<Vec<Tree>>> {
    let node = |(i, addr): (usize, Piece)| {
        Object::new(addr.at)
            .with("name", text(addr.at, format!("target-{i}")))
            .with("addr", addr.into())
            .tree()
    };
    let count = targets.len();
    let nodes: Vec<_> = targets.into_iter().enumerate().map(node).collect();
    if ports == 1 || count <= 1 {
        return Some(vec![nodes; ports]);
    }
    if count != ports {
        let severity = if count < ports { Severity::Error } else { Severity::Warning };
        let message = format!("{ports} ports and {count} targets");
        let help = "expected one target for all, or as many as there are ports: each has its own";
        draft.problems.report(severity, at, "", message, help);
    }
    (count >= ports).then(|| nodes.into_iter().take(ports).map(|node| vec![node]).collect())
}

/// The targets in a path: divided by commas, with ranges of ports.
fn targets(path: &Piece, draft: &Draft<'_, '_>) -> Option<Vec<Piece>> {
    let text = path.text.trim_start_matches('/');
    let skipped = path.text.len() - text.len();
    let at = path.at.behind(skipped);
    let mut targets = Vec::new();
    for target in Piece::new(at, text.trim_end_matches('/')).split(',') {
        let Ok(text) = url::unescape(&target.text, false) else {
            let help = "expected a target such as 192.0.2.1:80";
            draft.problems.report(Severity::Error, target.at, "", "a malformed escape".to_owned(), help);
            return None;
        };
        targets.extend(ports(Piece { text, ..target }, draft)?);
        if targets.len() > MAX_PORTS {
            break;
        }
    }
    bounded(targets, at, draft)
}

fn bounded(addrs: Vec<Piece>, at: Place, draft: &Draft<'_, '_>) -> Option<Vec<Piece>> {
    if addrs.len() <= MAX_PORTS {
        return Some(addrs);
    }
    let message = "too many ports".to_owned();
    let help = format!("expected at most {MAX_PORTS} in one argument");
    draft.problems.report(Severity::Error, at, "", message, help);
    None
}

/// An address for each port of a range `HOST:FIRST-LAST`; the address itself where there is none.
fn ports(addr: Piece, draft: &Draft<'_, '_>) -> Option<Vec<Piece>> {
    let range = addr.text.rsplit_once(':').and_then(|(host, ports)| {
        let (first, last) = ports.split_once('-')?;
        Some((host.to_owned(), first.parse::<u16>().ok()?, last.parse::<u16>().ok()?))
    });
    let Some((host, first, last)) = range.filter(|(_, first, last)| first <= last) else {
        return Some(vec![addr]);
    };
    let addrs: Vec<_> = (first..=last).map(|port| Piece::new(addr.at, format!("{host}:{port}"))).collect();
    bounded(addrs, addr.at, draft)
}
