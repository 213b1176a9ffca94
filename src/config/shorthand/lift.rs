//! Keys of a query that are more than metadata: they stand in the object itself, or in one that it names.

use super::Draft;
use super::object::{self, Object, list, text};
use super::query::Query;
use super::url::Piece;
use crate::config::problem::Severity;
use crate::config::tree::Tree;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

/// What the reference has for a selector that leaves them out, other than in files.
const MAX_FAILS: &str = "1";
const FAIL_TIMEOUT: &str = "30s";

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

/// What services and hops name in GOST. It is refused where it stands, so that nothing has to be made of what it says.
pub(super) fn references(object: Object, query: &mut Query<'_, '_>) -> Object {
    query.take(&["prefer"]);
    ["bypass", "resolver", "hosts"].iter().fold(object, |object, key| {
        let named = query.take(&[key]);
        object.with_any(key, named.map(Tree::from))
    })
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

/// `limiter.*`, `climiter` and `rlimiter`, what a service may take: refused as well.
pub(super) fn limits(object: Object, query: &mut Query<'_, '_>) -> Object {
    let limits = ["limiter.in", "limiter.out", "limiter.conn.in", "limiter.conn.out"];
    let limits: Vec<_> = limits.iter().filter_map(|key| query.take(&[key])).collect();
    let object = object.with_any("limiter", limits.into_iter().next().map(Tree::from));
    ["climiter", "rlimiter"].iter().fold(object, |object, key| {
        let limit = query.take(&[key]);
        object.with_any(key, limit.map(Tree::from))
    })
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
