//! `redis`, `http` and `reload` of a list, and `plugin` with GOST's own types.

use super::channels;
use super::reader::{Bare, Field, Map};
use super::settings::word;
use crate::source::redis::{self, Kind};
use crate::source::{At, Hidden, OnError, Origin, PluginSettings, Settings, Url};
use ::http::HeaderValue;
use std::time::Duration;

/// How often a list on the network is read: each time all of it is fetched, so less often than a file is looked at.
const RELOAD: Duration = Duration::from_secs(10);
/// Not more often than that.
const MIN_RELOAD: Duration = Duration::from_secs(1);
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// `key`, as in GOST.
const KEY: &str = "gost";
const REDIS_PORT: u16 = 6379;

/// The lists that there are beside a file.
pub(crate) const OR_LISTS: &str = ", redis or http";

/// `redis` and `http`, each a list that is read every `reload`.
pub(crate) fn lists(map: &Map<'_>) -> Vec<Settings> {
    let redis = map.filled(&["redis"]).and_then(|f| redis(&f)).map(Origin::Redis);
    let http = map.filled(&["http"]).and_then(|f| http(&f));
    let mut lists = Vec::new();
    for from in redis.into_iter().chain(http) {
        let every = map.filled(&["reload"]).and_then(|f| f.wait(Bare::Nanoseconds)).unwrap_or(RELOAD);
        lists.push(Settings { from, every: every.max(MIN_RELOAD) });
    }
    lists
}

fn redis(field: &Field<'_>) -> Option<redis::Settings> {
    let map = field.map()?;
    let addr = map.filled(&["addr"]);
    if addr.is_none() {
        map.error("redis without an address".to_owned(), "expected redis: { addr: HOST:6379 }");
    }
    let db = map.filled(&["db"]).and_then(|f| f.number(0..=i64::from(i32::MAX)));
    let kind = match map.filled(&["type"]).and_then(|f| word(&f, &["hash", "set"])) {
        Some("set") => Kind::Set,
        _ => Kind::Hash,
    };
    let text = |name| map.filled(&[name]).and_then(|f| f.text()).map(str::to_owned);
    let (username, password) = (text("username"), text("password").map(Hidden));
    if username.is_some() && password.is_none() {
        map.error("user name without a password".to_owned(), "expected password: SECRET too");
    }
    let key = text("key").unwrap_or_else(|| KEY.to_owned());
    map.finish(&[], &[]);
    let addr = addr?.address(Some(REDIS_PORT))?;
    let connect_timeout = super::settings::CONNECT_TIMEOUT;
    let db = u32::try_from(db.unwrap_or(0)).unwrap_or_default();
    Some(redis::Settings { addr, db, username, password, key, kind, connect_timeout })
}

fn http(field: &Field<'_>) -> Option<Origin> {
    let map = field.map()?;
    let url = map.filled(&["url"]);
    if url.is_none() {
        map.error("http without a URL".to_owned(), "expected http: { url: https://HOST/PATH }");
    }
    let timeout = timeout(&map).unwrap_or(HTTP_TIMEOUT);
    map.finish(&[], &[]);
    Some(Origin::Http { url: self::url(&url?)?, timeout })
}

fn timeout(map: &Map<'_>) -> Option<Duration> {
    map.filled(&["timeout"]).and_then(|f| f.wait(Bare::Nanoseconds))
}

fn url(field: &Field<'_>) -> Option<Url> {
    let text = field.text()?.trim();
    // It may hold a password: what was written is not repeated.
    let url = Url::parse(text);
    if let Err(error) = &url {
        field.error(
            format!("this is no URL of a server: {error}"),
            "expected http://HOST:PORT/PATH or https://HOST/PATH",
        );
    }
    url.ok()
}

/// The type of a plugin that is a process: `http` or `grpc`, which is GOST's default for one with an address.
pub(crate) fn is_process(field: &Field<'_>) -> bool {
    let Some(map) = field.map() else { return false };
    let kind = map.filled(&["type"]).and_then(|f| f.text().map(|text| text.trim().to_ascii_lowercase()));
    match kind.as_deref() {
        Some("http" | "grpc") => true,
        Some(_) => false,
        None => map.filled(&["addr"]).is_some() && map.filled(&["name", "path"]).is_none(),
    }
}

/// A plugin that is a process. `on_error`: what a failure means unless something else is said; `None`: nothing else can be said.
pub(crate) fn process(field: &Field<'_>, on_error: Option<OnError>) -> Option<(PluginSettings, OnError)> {
    let map = field.map()?;
    let kind = map.filled(&["type"]).map(|f| word(&f, &["grpc", "http"]));
    let is_http = kind == Some(Some("http"));
    let addr = map.filled(&["addr"]);
    if addr.is_none() {
        let help = if is_http { "expected addr: http://HOST:PORT/PATH" } else { "expected addr: HOST:PORT" };
        map.error("plugin without an address".to_owned(), help);
    }
    let token = map.filled(&["token"]).and_then(|f| token(&f));
    let timeout = timeout(&map).unwrap_or(PLUGIN_TIMEOUT);
    let tls = map.filled(&["tls"]).map(|f| f.map().and_then(|map| channels::client(map, &f)));
    let on_error = on_error.map(|default| self::on_error(&map).unwrap_or(default));
    map.without_effect(&["name", "path", "config", "allowAddresses"], "with a plugin of type http or grpc");
    map.finish(&[], &[]);
    if kind == Some(None) {
        return None;
    }
    let addr = addr?;
    let at = if is_http { At::Http(url(&addr)?) } else { At::Grpc(addr.address(None)?) };
    if let (At::Http(url), Some(_)) = (&at, &tls)
        && !url.is_https()
    {
        addr.warn("tls has no effect on a plugin at http://".to_owned(), "expected https:// in front");
    }
    // A section with mistakes is none that could be left out.
    let tls = match tls {
        Some(read) => Some(read?),
        None => None,
    };
    Some((PluginSettings { at, token, timeout, tls }, on_error.unwrap_or(OnError::Refuse)))
}

fn on_error(map: &Map<'_>) -> Option<OnError> {
    match word(&map.filled(&["onError"])?, &["next", "refuse"])? {
        "refuse" => Some(OnError::Refuse),
        _ => Some(OnError::Next),
    }
}

fn token(field: &Field<'_>) -> Option<Hidden> {
    let text = field.text()?.trim();
    if HeaderValue::from_str(text).is_err() {
        field.error("the token cannot be sent".to_owned(), "expected printable characters");
        return None;
    }
    Some(Hidden(text.to_owned()))
}
