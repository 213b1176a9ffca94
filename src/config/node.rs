//! What a forwarder's node says of the connections and requests that go to it: `http`, `auth` and `tls`.

use super::auth::credential;
use super::channels;
use super::forwarder::Terms;
use super::reader::{Field, Map};
use super::settings::parts;
use crate::auth::Credential;
use crate::forward::NodeSettings;
use crate::http::{BadReplacement, HostText, UrlRule};
use http::{HeaderName, HeaderValue};
use regex::Regex;
use std::ops::RangeInclusive;

/// Fields that belong to one connection or say where a message ends: nobody but the proxy may write them.
const OF_CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// GOST's keys of the same kind, which would change what passes.
const NEEDED: &[&str] = &["rewriteBody", "rewriteRequestBody", "rewriteResponseBody", "rewriteReqBody"];

/// What is done with HTTP requests and their replies, and with nothing else.
const OF_REQUESTS: [&[&str]; 4] =
    [&["requestHeader", "header"], &["responseHeader"], &["rewriteURL", "rewrite"], &["failCodes"]];

pub(crate) fn read(node: &Map<'_>, terms: Terms<'_>) -> NodeSettings {
    let tls = node.filled(&["tls"]).and_then(|f| channels::client(f.map()?, &f));
    let mut settings = NodeSettings { tls, ..NodeSettings::default() };
    let auth = node.filled(&["auth"]);
    if !terms.known.http {
        without_requests(node, terms, settings.tls.is_some());
    }
    if let Some(map) = node.filled(&["http"]).and_then(|f| f.map()) {
        let users = map.filled(&["auth"]).or(auth);
        settings.users = users.and_then(|f| basic(&f)).into_iter().collect();
        settings.rewrite.host = map.filled(&["host"]).and_then(|f| host(&f));
        settings.rewrite.request = fields(&map, &["requestHeader", "header"]);
        settings.rewrite.reply = fields(&map, &["responseHeader"]);
        let rules = map.filled(&["rewriteURL", "rewrite"]).map(|f| f.list()).unwrap_or_default();
        settings.rewrite.urls = rules.iter().filter_map(url_rule).collect();
        settings.fail_codes = map.filled(&["failCodes"]).map(|f| codes(&f)).unwrap_or_default();
        map.finish(&[], NEEDED);
    } else {
        settings.users = auth.and_then(|f| basic(&f)).into_iter().collect();
    }
    settings
}

/// What is said of requests where nobody looks for any. A `host` is also what a server is asked for over TLS.
fn without_requests(node: &Map<'_>, terms: Terms<'_>, tls: bool) {
    let (because, help) = terms.no_requests();
    let http = node.filled(&["http"]).and_then(|f| f.map());
    let auth = http.as_ref().and_then(|map| map.filled(&["auth"])).or_else(|| node.filled(&["auth"]));
    if let Some(auth) = auth {
        auth.error(format!("nobody could log in: no request is seen {because}"), help);
    }
    let Some(http) = http else { return };
    let host: &[&[&str]] = if tls { &[] } else { &[&["host"]] };
    for field in OF_REQUESTS.iter().chain(host).filter_map(|names| http.filled(names)) {
        field.warn(format!("no effect: no request is seen {because}"), help);
    }
}

/// A user who can log in by Basic authentication, where the name ends at the first colon (RFC 7617).
fn basic(field: &Field<'_>) -> Option<Credential> {
    let credential = credential(field)?;
    if credential.username.contains(':') {
        let message = format!("user name {:?} has a colon", credential.username);
        field.error(message, "expected a name without one: nobody could log in by it");
    }
    Some(credential)
}

fn host(field: &Field<'_>) -> Option<HostText> {
    let text = field.text()?.trim();
    let host = HostText::parse(text);
    if host.is_none() {
        field.error(format!("{text:?} is no host"), "expected example.com or example.com:8080");
    }
    host
}

/// Names and values; an empty value takes the field out.
fn fields(map: &Map<'_>, names: &[&'static str]) -> Vec<(String, Option<String>)> {
    let Some(field) = map.filled(names) else { return Vec::new() };
    let entries = field.map().into_iter().flat_map(Map::into_texts);
    entries.filter_map(|(name, value)| edit(&field, &name, value.trim())).collect()
}

fn edit(field: &Field<'_>, name: &str, value: &str) -> Option<(String, Option<String>)> {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        field.error(format!("{name:?} is no field name"), "expected NAME: VALUE, such as X-Team: blue");
    } else if HeaderValue::from_str(value).is_err() {
        field.error(format!("{value:?} can be no field's value"), "expected visible ASCII and spaces");
    } else if name.eq_ignore_ascii_case("host") {
        field.error("Host among the fields".to_owned(), "expected http: { host: example.com }");
    } else if OF_CONNECTION.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        let help = "remove it: the proxy writes this field itself where it is needed";
        field.error(format!("{name} belongs to the connection, not to the request"), help);
    } else {
        return Some((name.to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty())));
    }
    None
}

fn url_rule(field: &Field<'_>) -> Option<UrlRule> {
    let map = field.map()?;
    let (pattern, replacement) = (map.filled(&["match"]), map.get(&["replacement"]));
    if pattern.is_none() {
        map.error("rule without a pattern".to_owned(), "expected { match: ^/api/(.*)$, replacement: /$1 }");
    }
    let pattern = pattern.and_then(|f| regex(&f));
    let text = replacement.as_ref().and_then(|f| f.text()).unwrap_or_default();
    map.finish(&[], &[]);
    match (UrlRule::new(pattern?, text), replacement) {
        (Err(error), Some(field)) => {
            let help = match error {
                BadReplacement::Group { .. } => {
                    "a name goes on for as long as letters, digits and _ do: write ${1}_x for what the first group found and _x, $$ for a dollar"
                }
                BadReplacement::Url(_) => {
                    "expected a path such as /v1/$1; the node's addr says where it goes, http.host the Host"
                }
                BadReplacement::Escape(_) => "write %25 for a %",
            };
            field.error(error.to_string(), help);
            None
        }
        (rule, _) => rule.ok(),
    }
}

fn regex(field: &Field<'_>) -> Option<Regex> {
    let text = field.text()?;
    let pattern = Regex::new(text);
    if let Err(error) = &pattern {
        let error = error.to_string();
        let what = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        field.error(format!("{text:?} is no regular expression: {what}"), "expected for example ^/api/(.*)$");
    }
    pattern.ok()
}

/// `429,5xx`, or a list of such.
fn codes(field: &Field<'_>) -> Vec<RangeInclusive<u16>> {
    let known = |(item, text): (Field<'_>, &str)| {
        let code = code(text);
        if code.is_none() {
            item.error(format!("{text:?} is no status code"), "expected for example 429,5xx");
        }
        code
    };
    parts(field).filter_map(known).collect()
}

fn code(text: &str) -> Option<RangeInclusive<u16>> {
    let hundreds = |first: &str| first.parse::<u16>().ok().filter(|n| (1..=5).contains(n));
    if let Some(first) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        return hundreds(first).map(|n| n * 100..=n * 100 + 99);
    }
    text.parse().ok().filter(|code| (100..600).contains(code)).map(|code| code..=code)
}
