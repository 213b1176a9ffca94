//! Who may use a handler: user names and passwords, inline and in files that are read anew when they change.
//!
//! A user that disappears, or whose password changes, is revoked: whoever came in by it sees the token of its [`Login`] cancelled.

mod secret;
#[cfg(test)]
mod tests;

pub use secret::Secret;

use crate::lines::{self, Stamp};
use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
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
        // Without a file there is no line that could be wrong.
        let _ = auther.apply("");
        auther
    }

    /// Reads the file.
    pub(crate) fn new(settings: &Settings) -> Result<Self, AuthError> {
        let auther = Self::without_users(settings.clone());
        let path = || settings.file.as_ref().map(|file| file.path.display().to_string()).unwrap_or_default();
        let text = settings.file.as_ref().map(|file| lines::read(&file.path)).transpose();
        let text = text.map_err(|error| AuthError::Read(path(), error))?;
        auther.apply(text.as_deref().unwrap_or_default()).map_err(|line| AuthError::Line(path(), line))?;
        Ok(auther)
    }

    fn without_users(settings: Settings) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            users: ArcSwap::default(),
            stamp: settings.file.as_ref().map(|file| Stamp::of(&file.path)),
            settings,
            key: [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes),
            hashing: Arc::new(Semaphore::new(cores.div_ceil(2))),
        }
    }

    /// Reads the file anew whenever it changes, until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        if let (Some(file), Some(stamp)) = (self.settings.file.clone(), self.stamp) {
            lines::follow(file, stamp, stop, |text| self.apply(text)).await;
        }
    }

    /// Takes what the file says; whoever is not what it was before is revoked.
    fn apply(&self, text: &str) -> Result<(), String> {
        let listed = lines::lines(text)
            .map(|(number, line)| credential(line).map_err(|e| format!("line {number}: {e}")));
        let listed = listed.collect::<Result<Vec<_>, _>>()?;
        let before = self.users.load_full();
        let mut users = Users::new();
        for Credential { username, secret } in self.settings.users.iter().cloned().chain(listed) {
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
        Ok(())
    }

    async fn check(&self, username: &[u8], password: &[u8]) -> Option<Login> {
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

/// `USER PASSWORD`, the password to the end of the line.
fn credential(line: &str) -> Result<Credential, String> {
    let (username, password) = line.split_once([' ', '\t']).ok_or("expected USER PASSWORD")?;
    if username.len() > u8::MAX.into() {
        return Err("user name over 255 bytes".to_owned());
    }
    let secret = Secret::parse(password.trim_start())?;
    Ok(Credential { username: username.to_owned(), secret })
}

/// All who know the users of one handler; one of them is enough.
#[derive(Debug, Clone, Default)]
pub(crate) struct Authers(Vec<Arc<Auther>>);

impl Authers {
    /// Whether nobody is asked, so that everybody may come in.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whoever has this name and this password.
    pub(crate) async fn check(&self, username: &[u8], password: &[u8]) -> Option<Login> {
        for auther in &self.0 {
            if let Some(login) = auther.check(username, password).await {
                return Some(login);
            }
        }
        None
    }
}

impl FromIterator<Arc<Auther>> for Authers {
    fn from_iter<T: IntoIterator<Item = Arc<Auther>>>(authers: T) -> Self {
        Self(authers.into_iter().collect())
    }
}
