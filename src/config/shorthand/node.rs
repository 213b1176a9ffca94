//! `-F` to a hop: one node for each host.

use super::object::{self, Object, list, text};
use super::query::Query;
use super::url::{Piece, Url};
use super::words::{self, NODE};
use super::{Draft, lift};
use crate::config::problem::Severity;
use crate::config::tree::Tree;

/// `fingerprint` is ours; the others are GOST's.
const TLS: &[(&str, &[&str])] = &[
    ("certFile", &["tls.certFile", "certFile", "cert"]),
    ("keyFile", &["tls.keyFile", "keyFile", "key"]),
    ("caFile", &["tls.caFile", "caFile", "ca"]),
    ("secure", &["tls.secure", "secure"]),
    ("serverName", &["tls.serverName", "serverName"]),
    ("fingerprint", &["tls.fingerprint", "fingerprint"]),
];

/// The hop that an argument says, the one of that number; what is wrong with it is reported.
pub(super) fn hop(index: usize, url: Url, draft: &mut Draft<'_, '_>) -> Option<Tree> {
    let (connector, dialer) = words::halves(&url.scheme, &NODE, draft.problems)?;
    let at = url.scheme.at;
    warn_of_path(&url.path, draft);
    let mut query = Query::new(url.query, draft.problems);
    let mut hop = Object::new(at).with("name", text(at, format!("hop-{index}")));
    hop = hop.with_any("selector", lift::selector(&mut query));
    hop = lift::references(hop, &mut query);
    hop = hop.with_any("interface", query.take(&["interface", "hop.interface"]).map(Tree::from));
    if let Some(mark) = query.take(&["so_mark", "hop.so_mark"]) {
        hop = hop.with("sockopts", Object::new(mark.at).with("mark", mark.into()).tree());
    }
    let proxied =
        query.take(&["proxyProtocol", "hop.proxyProtocol"]).map(|version| ("proxyProtocol", version));
    let hop_metadata = query.take_own("hop");
    let auth = lift::auth(url.user, &mut query, draft);
    let tls = lift::tls(&mut query, TLS);
    let [connector_metadata, dialer_metadata, metadata] = query.metadata(["connector", "dialer", "node"]);
    let metadata = object::joined(metadata, proxied.into_iter().collect());
    let connector = Object::new(connector.at)
        .with("type", connector.into())
        .with_any("auth", auth)
        .with_any("metadata", connector_metadata);
    let dialer = Object::new(dialer.at)
        .with("type", dialer.into())
        .with_any("tls", tls)
        .with_any("metadata", dialer_metadata);
    let (connector, dialer) = (connector.tree(), dialer.tree());
    let node = |(i, addr): (usize, Option<Piece>)| {
        let at = addr.as_ref().map_or(at, |addr| addr.at);
        let node = Object::new(at).with("name", text(at, format!("node-{i}")));
        let node = node.with_any("addr", addr.map(Tree::from)).with("connector", connector.clone());
        node.with("dialer", dialer.clone()).with_any("metadata", metadata.clone()).tree()
    };
    let nodes = list(at, hosts(&url.host).into_iter().enumerate().map(node).collect());
    Some(hop.with("nodes", nodes).with_any("metadata", hop_metadata).tree())
}

/// The hosts of an argument; none is one without an address, for connector `direct`.
fn hosts(host: &Piece) -> Vec<Option<Piece>> {
    let hosts: Vec<_> = host.split(',').map(Some).collect();
    if hosts.is_empty() { vec![None] } else { hosts }
}

fn warn_of_path(path: &Piece, draft: &Draft<'_, '_>) {
    if !path.text.trim_matches('/').is_empty() {
        let message = "a path behind a node: left aside".to_owned();
        let help = "expected CONNECTOR+DIALER://HOST:PORT; targets stand in -L, and the path of a channel is ?path=/PATH";
        draft.problems.report(Severity::Warning, path.at, "", message, help);
    }
}
