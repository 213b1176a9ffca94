//! Keys of a query that are more than metadata: they stand in the object itself, or in one that it names.

use super::Draft;
use super::object::{self, Object, list, text};
use super::query::Query;
use super::url::Piece;
use crate::config::file::Tree;
use crate::config::problem::Severity;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

/// What the reference has for a selector that leaves them out, other than in files.
const MAX_FAILS: &str = "1";
const FAIL_TIMEOUT: &str = "30s";
/// How limits name the whole service, and each of its connections.
const SERVICE_LIMIT: &str = "$";
const CONNECTION_LIMIT: &str = "$$";

/// User and password: those before the `@`, or else `auth`, which is base64 of `USER:PASSWORD`.
pub(super) fn auth(
    user: Option<(Piece, Option<Piece>)>,
    query: &mut Query<'_, '_>,
    draft: &Draft<'_, '_>,
) -> Option<Tree> {
    let encoded = query.take(&["auth"]);
    if let Some((user, password)) = user {
        return Some(object::credentials(user, password));
    }
    let Piece { at, text } = encoded?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).or_else(|_| BASE64_STANDARD.decode(&text)).ok();
    let Some(decoded) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) else {
        let help = "expected auth= and base64 of USER:PASSWORD, in which a + is written %2B";
        draft.problems.report(Severity::Error, at, "auth", "no base64 of a text".to_owned(), help);
        return None;
    };
    let (user, password) = match decoded.split_once(':') {
        Some((user, password)) => (user, Some(Piece::new(at, password))),
        None => (&*decoded, None),
    };
    Some(object::credentials(Piece::new(at, user), password))
}

/// `strategy`, `maxFails` and `failTimeout`.
pub(super) fn selector(query: &mut Query<'_, '_>) -> Option<Tree> {
    let strategy = query.take(&["strategy"]);
    let fails = query.take(&["maxFails", "max_fails"]);
    let timeout = query.take(&["failTimeout", "fail_timeout"]).map(seconds);
    let at = strategy.as_ref().or(fails.as_ref()).or(timeout.as_ref())?.at;
    let or = |piece: Option<Piece>, default: &str| piece.map_or_else(|| text(at, default), Tree::from);
    let selector = Object::new(at).with("strategy", or(strategy, "round"));
    Some(
        selector.with("maxFails", or(fails, MAX_FAILS)).with("failTimeout", or(timeout, FAIL_TIMEOUT)).tree(),
    )
}

/// A number alone is seconds in a query, and nanoseconds in a selector.
fn seconds(mut piece: Piece) -> Piece {
    if piece.text.bytes().all(|byte| byte.is_ascii_digit()) {
        piece.text.push('s');
    }
    piece
}

/// `bypass`, `resolver` and `hosts`, which services and hops have.
pub(super) fn references(mut object: Object, query: &mut Query<'_, '_>, draft: &mut Draft<'_, '_>) -> Object {
    if let Some(value) = query.take(&["bypass"]) {
        object = object.with("bypass", draft.add("bypasses", "bypass", matchers(&value)));
    }
    if let Some(value) = query.take(&["resolver"]) {
        let prefer = query.take(&["prefer"]);
        let server = |addr: Piece| {
            let server = Object::new(addr.at).with("addr", addr.into());
            server.with_any("prefer", prefer.clone().map(Tree::from)).tree()
        };
        let servers = list(value.at, value.split(',').map(server).collect());
        let resolver = Object::new(value.at).with("nameservers", servers);
        object = object.with("resolver", draft.add("resolvers", "resolver", resolver));
    }
    if let Some(value) = query.take(&["hosts"]) {
        let mapping = |pair: Piece| {
            let (host, ip) = pair.text.split_once(':')?;
            Some(
                Object::new(pair.at)
                    .with("hostname", text(pair.at, host))
                    .with("ip", text(pair.at, ip))
                    .tree(),
            )
        };
        let mappings = list(value.at, value.split(',').filter_map(mapping).collect());
        let hosts = Object::new(value.at).with("mappings", mappings);
        object = object.with("hosts", draft.add("hosts", "hosts", hosts));
    }
    object
}

/// `admission`, which only services have.
pub(super) fn admission(object: Object, query: &mut Query<'_, '_>, draft: &mut Draft<'_, '_>) -> Object {
    match query.take(&["admission"]) {
        Some(value) => object.with("admission", draft.add("admissions", "admission", matchers(&value))),
        None => object,
    }
}

/// A list with commas; a `~` in front makes it one of those that are let through.
fn matchers(value: &Piece) -> Object {
    let (whitelist, listed) = match value.text.strip_prefix('~') {
        Some(rest) => (Some(text(value.at, "true")), Piece::new(value.at, rest)),
        None => (None, value.clone()),
    };
    let matchers = listed.split(',').map(Tree::from).collect();
    Object::new(value.at).with_any("whitelist", whitelist).with("matchers", list(value.at, matchers))
}

/// `limiter.*`, `climiter` and `rlimiter`: what a service may take.
pub(super) fn limits(mut object: Object, query: &mut Query<'_, '_>, draft: &mut Draft<'_, '_>) -> Object {
    let mut lines = Vec::new();
    for (scope, inward, outward) in [
        (SERVICE_LIMIT, "limiter.in", "limiter.out"),
        (CONNECTION_LIMIT, "limiter.conn.in", "limiter.conn.out"),
    ] {
        let (inward, outward) = (query.take(&[inward]), query.take(&[outward]));
        if let Some(at) = inward.as_ref().or(outward.as_ref()).map(|piece| piece.at) {
            let [inward, outward] = [inward, outward].map(|piece| piece.map_or_else(String::new, |p| p.text));
            lines.push(text(at, format!("{scope} {inward} {outward}")));
        }
    }
    if let Some(at) = lines.first().map(|line| line.at) {
        let limiter = Object::new(at).with("limits", list(at, lines));
        object = object.with("limiter", draft.add("limiters", "limiter", limiter));
    }
    for (key, section) in [("climiter", "climiters"), ("rlimiter", "rlimiters")] {
        if let Some(Piece { at, text: limit }) = query.take(&[key]) {
            let line = text(at, format!("{SERVICE_LIMIT} {limit}"));
            let limiter = Object::new(at).with("limits", list(at, vec![line]));
            object = object.with(key, draft.add(section, key, limiter));
        }
    }
    object
}

/// `tls`: the keys of GOST's that it has in a query, with their spellings there.
pub(super) fn tls(query: &mut Query<'_, '_>, keys: &[(&str, &[&str])]) -> Option<Tree> {
    let mut tls = None;
    for (key, names) in keys {
        if let Some(value) = query.take(names) {
            tls = Some(tls.unwrap_or_else(|| Object::new(value.at)).with(key, value.into()));
        }
    }
    tls.map(Object::tree)
}
