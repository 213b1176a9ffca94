//! Who may use a handler: user names and passwords, inline and in lists that are read anew when they change.
//!
//! A user that disappears, or whose password changes, is revoked: whoever came in by it sees the token of its [`Login`] cancelled.

mod secret;
#[cfg(test)]
mod tests;

pub use secret::Secret;

use crate::lines::{self, Listed, Lists, Place, Stamp};
use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A user name and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// At most 255 bytes.
    pub username: String,
    /// The password, or a hash of it.
    pub secret: Secret,
}

/// `authers[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `name`.
    pub name: String,
    /// `auths`.
    pub users: Vec<Credential>,
    /// `file`, with lines `USER PASSWORD`; a user that stands in both has the password of the file.
    pub file: Option<lines::Settings>,
}

/// A file of users that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(String, io::Error),
    /// A line is wrong.
    #[error("{0}: {1}")]
    Line(String, String),
}

/// Whoever came in.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) user: Arc<str>,
    /// Cancelled when the user may no longer be here.
    pub(crate) revoked: CancellationToken,
}

#[derive(Debug)]
struct User {
    name: Arc<str>,
    secret: Secret,
    revoked: CancellationToken,
    /// Keyed digest of the password that was right last: a hash is slow by design, and clients that come again are many.
    verified: Mutex<Option<[u8; 32]>>,
}

type Users = HashMap<Box<[u8]>, Arc<User>>;

/// Knows users.
#[derive(Debug)]
pub(crate) struct Auther {
    settings: Settings,
    users: ArcSwap<Users>,
    lists: Mutex<Lists<Credential>>,
    /// What the file was when it was read at first.
    stamp: Option<Stamp>,
    /// For digests of passwords; another one in each process.
    key: [[u8; 16]; 2],
    /// Hashes that are computed at once: strangers get no more of the processors.
    hashing: Arc<Semaphore>,
}

impl Auther {
    /// Knows these users, and no others.
    pub(crate) fn inline(users: Vec<Credential>) -> Self {
        let auther = Self::without_users(Settings { name: String::new(), users, file: None });
        // Where nothing is listed, nothing can be wrong.
        let _ = auther.apply(Place::File, &Listed::Text(String::new()));
        auther
    }

    /// Reads the file.
    pub(crate) fn new(settings: &Settings) -> Result<Self, AuthError> {
        let auther = Self::without_users(settings.clone());
        let path = || settings.file.as_ref().map(|file| file.path.display().to_string()).unwrap_or_default();
        let text = settings.file.as_ref().map(|file| lines::read(&file.path)).transpose();
        let text = text.map_err(|error| AuthError::Read(path(), error))?;
        let listed = Listed::Text(text.unwrap_or_default());
        auther.apply(Place::File, &listed).map_err(|line| AuthError::Line(path(), line))?;
        Ok(auther)
    }

    fn without_users(settings: Settings) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            users: ArcSwap::default(),
            lists: Mutex::default(),
            stamp: settings.file.as_ref().map(|file| Stamp::of(&file.path)),
            settings,
            key: [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes),
            hashing: Arc::new(Semaphore::new(cores.div_ceil(2))),
        }
    }

    /// Reads the file anew whenever it changes, until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        if let (Some(file), Some(stamp)) = (self.settings.file.clone(), self.stamp) {
            let apply = |text: &str| self.apply(Place::File, &Listed::Text(text.to_owned())).map(drop);
            lines::follow(file, stamp, stop, apply).await;
        }
    }

    /// Takes what a list says, in place of what it said before; how many users that is. Whoever is not what it was is revoked.
    pub(crate) fn apply(&self, place: Place, listed: &Listed) -> Result<usize, String> {
        let listed = credentials(listed)?;
        let count = listed.len();
        // Held to the end: of two lists that change at once none may be lost.
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.replace(place, listed);
        let before = self.users.load_full();
        let mut users = Users::new();
        for Credential { username, secret } in lists.all(&self.settings.users) {
            let key = username.as_bytes();
            let user = match before.get(key) {
                Some(user) if user.secret == secret => Arc::clone(user),
                _ => Arc::new(User {
                    name: username.as_str().into(),
                    secret,
                    revoked: CancellationToken::new(),
                    verified: Mutex::default(),
                }),
            };
            users.insert(key.into(), user);
        }
        let users = Arc::new(users);
        self.users.store(Arc::clone(&users));
        let stays = |key: &[u8], user: &Arc<User>| users.get(key).is_some_and(|now| Arc::ptr_eq(now, user));
        for (_, gone) in before.iter().filter(|(key, user)| !stays(key, user)) {
            gone.revoked.cancel();
        }
        Ok(count)
    }

    /// Whoever has this name and this password.
    pub(crate) async fn check(&self, username: &[u8], password: &[u8]) -> Option<Login> {
        let users = self.users.load_full();
        let known = users.get(username);
        // A name that is not known costs what one costs that is, so that nobody can try out which are.
        let user = known.or_else(|| users.values().find(|user| user.secret.is_slow()))?;
        let right = if user.secret.is_slow() {
            self.is_slowly_right(user, password).await
        } else {
            user.secret.verify(password)
        };
        let login = || Login { user: Arc::clone(&user.name), revoked: user.revoked.clone() };
        (right && known.is_some() && !user.revoked.is_cancelled()).then(login)
    }

    async fn is_slowly_right(&self, user: &Arc<User>, password: &[u8]) -> bool {
        let digest: [u8; 32] =
            Sha256::new().chain_update(self.key.concat()).chain_update(password).finalize().into();
        let verified = || *user.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified().is_some_and(|known| known.ct_eq(&digest).into()) {
            return true;
        }
        let Ok(turn) = Arc::clone(&self.hashing).acquire_owned().await else { return false };
        let (hashed, password) = (Arc::clone(user), password.to_vec());
        let right = spawn_blocking(move || {
            // Held to the end, even if nobody waits for the answer any more.
            let _turn = turn;
            hashed.secret.verify(&password)
        });
        let right = right.await.unwrap_or(false);
        if right {
            *user.verified.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
        }
        right
    }
}

fn credentials(listed: &Listed) -> Result<Vec<Credential>, String> {
    match listed {
        Listed::Text(text) => lines::lines(text)
            .map(|(number, line)| {
                let (username, password) = line
                    .split_once([' ', '\t'])
                    .ok_or_else(|| format!("line {number}: expected USER PASSWORD"))?;
                credential(username, password.trim_start()).map_err(|e| format!("line {number}: {e}"))
            })
            .collect(),
        Listed::Pairs(pairs) => pairs
            .iter()
            .map(|(username, password)| {
                credential(username, password).map_err(|e| format!("user {username:?}: {e}"))
            })
            .collect(),
    }
}

fn credential(username: &str, password: &str) -> Result<Credential, String> {
    if username.len() > u8::MAX.into() {
        return Err("user name over 255 bytes".to_owned());
    }
    Ok(Credential { username: username.to_owned(), secret: Secret::parse(password)? })
}

/// Whoever wants to come in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) username: &'a [u8],
    pub(crate) password: &'a [u8],
    pub(crate) service: &'a str,
    pub(crate) client: SocketAddr,
}

/// Whether somebody may come in, when it is known.
pub(crate) type Known<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// Somebody outside of this process who knows users.
pub(crate) trait Outside: fmt::Debug + Send + Sync {
    /// Whether these are a user's name and password; not when it cannot be told.
    fn knows<'a>(&'a self, claim: Claim<'a>) -> Known<'a>;
}

/// Who knows users.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// What is listed.
    Listed(Arc<Auther>),
    /// Somebody who is asked each time; nobody who came in so is revoked.
    Outside(Arc<dyn Outside>),
}

/// All who know the users of one handler; one of them is enough.
#[derive(Debug, Clone, Default)]
pub(crate) struct Authers(Vec<Source>);

impl Authers {
    /// Whether nobody is asked, so that everybody may come in.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whoever has this name and this password.
    pub(crate) async fn check(&self, claim: Claim<'_>) -> Option<Login> {
        for source in &self.0 {
            let login = match source {
                Source::Listed(auther) => auther.check(claim.username, claim.password).await,
                Source::Outside(outside) => outside.knows(claim).await.then(|| Login {
                    user: String::from_utf8_lossy(claim.username).into(),
                    revoked: CancellationToken::new(),
                }),
            };
            if login.is_some() {
                return login;
            }
        }
        None
    }
}

impl FromIterator<Source> for Authers {
    fn from_iter<T: IntoIterator<Item = Source>>(sources: T) -> Self {
        Self(sources.into_iter().collect())
    }
}
