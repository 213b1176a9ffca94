//! `authers[]`, what a handler says of them, and the owners of tunnels.

use super::named::Named;
use super::reader::{Bare, Field, Map};
use super::settings::{networks, read_size, tunnel_id};
use super::{Auther, source};
use crate::addr::Network;
use crate::auth::{Credential, Secret, Settings};
use crate::lines;
use crate::route::hosts::HostPattern;
use crate::tunnel::gate::Owned;
use std::path::PathBuf;
use std::time::Duration;

/// How often it is looked whether a file has changed.
const RELOAD: Duration = Duration::from_secs(1);
/// Most that the relay protocol holds of a user name or a password.
const MAX_CREDENTIAL: usize = 255;

/// Who may use a handler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// `auth`.
    pub users: Vec<Credential>,
    /// `auther` and `authers`, among [`super::Config::authers`].
    pub authers: Vec<String>,
    /// Metadata `skipauth`: addresses of clients that are asked for no password.
    pub skip: Vec<Network>,
}

impl Auth {
    /// Whether nobody is asked who he is.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.authers.is_empty()
    }
}

pub(crate) fn auther(name: &str, field: &Field<'_>) -> Option<Auther> {
    let map = field.map()?;
    map.get(&["name"]);
    if let Some(plugin) = map.filled(&["plugin"]) {
        let read = source::process(&plugin, None);
        map.without_effect(&["auths", "file", "redis", "http", "reload"], "beside a plugin");
        map.finish(&[], &[]);
        return read.map(|(settings, _)| Auther::Process(Box::new(settings)));
    }
    let auths = map.get(&["auths"]).map(|f| f.list()).unwrap_or_default();
    let users = auths.iter().filter_map(credential).collect();
    let lists = source::lists(&map);
    let file = lines_file(&map, source::OR_LISTS);
    map.finish(&[], &[]);
    Some(Auther::Listed { settings: Settings { name: name.to_owned(), users, file }, lists })
}

/// `file: { path }` and `reload`. `others`: what else it would count for, in the words of a warning.
pub(crate) fn lines_file(map: &Map<'_>, others: &str) -> Option<lines::Settings> {
    let path = map.filled(&["file"]).and_then(|field| {
        let file = field.map()?;
        let path = file.filled(&["path"]).and_then(|f| f.text()).map(PathBuf::from);
        if path.is_none() {
            file.error("file without a path".to_owned(), "expected file: { path: FILE }");
        }
        file.finish(&[], &[]);
        path
    });
    if path.is_none() {
        map.without_effect(&["reload"], &format!("without a file{others}"));
    }
    let every = map.filled(&["reload"]).and_then(|f| f.wait(Bare::Nanoseconds)).unwrap_or(RELOAD);
    path.map(|path| lines::Settings { path, every: every.max(RELOAD) })
}

/// `{ username, password }`.
pub(crate) fn credential(field: &Field<'_>) -> Option<Credential> {
    let map = field.map()?;
    let username = username(&map);
    let secret = map.get(&["password"]).and_then(|f| secret(&f));
    if map.get(&["password"]).is_none() {
        map.error(
            "user without a password".to_owned(),
            "expected password: SECRET, or an argon2 or bcrypt hash of it",
        );
    }
    map.finish(&[], &[]);
    Some(Credential { username: username?, secret: secret? })
}

fn username(map: &Map<'_>) -> Option<String> {
    let Some(field) = map.filled(&["username"]) else {
        map.error("user without a name".to_owned(), "expected username: NAME");
        return None;
    };
    let name = field.text()?;
    if name.len() > MAX_CREDENTIAL {
        field.error(format!("user name over {MAX_CREDENTIAL} bytes"), "the relay protocol holds no more");
        return None;
    }
    Some(name.to_owned())
}

fn secret(field: &Field<'_>) -> Option<Secret> {
    let text = if field.is_blank() { "" } else { field.text()? };
    let secret = Secret::parse(text);
    if let Err(error) = &secret {
        field.error(error.clone(), "expected a password, or an argon2 or bcrypt hash of one");
    }
    secret.ok()
}

/// `auth`, `auther` and `authers` of a handler, and `skipauth` in its metadata.
pub(crate) fn read(map: &Map<'_>, metadata: &Map<'_>, known: &Named<'_, Auther>) -> Auth {
    let asked = ["auth", "auther", "authers"].map(|key| map.filled(&[key]));
    let skipauth = metadata.filled(&["skipauth"]);
    if let Some(skipauth) = skipauth.as_ref().filter(|_| asked.iter().all(Option::is_none)) {
        let help = "expected auth, auther or authers at the handler, or no skipauth";
        skipauth.warn("no effect at a handler that asks nobody for a password".to_owned(), help);
    }
    let [auth, auther, authers] = asked;
    let users = auth.and_then(|f| credential(&f)).into_iter().collect();
    let skip = skipauth.map(|f| networks(&f)).unwrap_or_default();
    Auth { users, authers: known.find_all(auther, authers), skip }
}

/// `tunnels` of a tunnel server; `None`: there is no such list. `asks`: whether the handler has users.
pub(crate) fn owned(metadata: &Map<'_>, asks: bool) -> Option<Vec<Owned>> {
    let list = metadata.get(&["tunnels"])?;
    let mut owned: Vec<Owned> = Vec::new();
    for field in list.list() {
        let Some(map) = field.map() else { continue };
        let Some(tunnel) = owned_tunnel(map, asks) else { continue };
        if owned.iter().any(|other| other.id == tunnel.id) {
            field.error(format!("tunnel {} stands twice", tunnel.id), "expected each ID once");
        }
        owned.push(tunnel);
    }
    Some(owned)
}

fn owned_tunnel(map: Map<'_>, asks: bool) -> Option<Owned> {
    let id = map.filled(&["id"]);
    if id.is_none() {
        map.error("tunnel without an ID".to_owned(), "expected id: UUID");
    }
    let id = id.and_then(|f| tunnel_id(&f));
    let (mut credentials, mut users) = (Vec::new(), Vec::new());
    for field in map.get(&["credentials"]).map(|f| f.list()).unwrap_or_default() {
        let Some(entry) = field.map() else { continue };
        if entry.get(&["password"]).is_some() {
            credentials.extend(credential(&field));
            continue;
        }
        if !asks {
            entry.error(
                "user without a password at a handler without users".to_owned(),
                "expected password: SECRET, or auth, auther or authers at the handler",
            );
        }
        users.extend(username(&entry));
        entry.finish(&[], &[]);
    }
    let hosts = map.get(&["hostnames"]).map(|f| f.list()).unwrap_or_default();
    let hostnames = hosts.iter().filter_map(host).collect();
    let mut max = 0;
    read_size(&map, &["maxConnectors"], 1, &mut max);
    map.finish(&[], &[]);
    let max_connectors = (max > 0).then_some(max);
    Some(Owned { id: id?, credentials, users, hostnames, max_connectors })
}

fn host(field: &Field<'_>) -> Option<HostPattern> {
    let text = field.text()?;
    let pattern = HostPattern::from_filter(text).ok().flatten();
    if pattern.is_none() {
        field.error(format!("{text:?} is no host"), "expected dash.example.com or *.example.com");
    }
    pattern
}
