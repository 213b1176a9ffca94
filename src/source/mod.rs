//! Rules and users that come over the network: lists in Redis and behind HTTP, read anew every so often, and GOST's plugins, which
//! are asked each time.
//!
//! A source that fails takes nothing away: what it said last stays, until it says something else. What a list means is
//! the business of whoever follows it.

mod auther;
mod grpc;
mod http;
mod ingress;
mod plugin;
pub mod redis;
mod url;

pub use ingress::{OnError, Remote};
pub use plugin::{At, Settings as PluginSettings};
pub use url::Url;

pub(crate) use auther::RemoteAuther;

use crate::channel::tls::TlsError;
use crate::lines::{Listed, Place};
use crate::shutdown::Shutdown;
use sha2::{Digest, Sha256};
use std::fmt;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

/// Bytes of one list: as many as a file has. Without a bound a source that is not ours could fill the memory.
const MAX_LIST: usize = 64 * 1024 * 1024;
/// For everything that Redis is asked at one time, after the connection.
const REDIS_TIMEOUT: Duration = Duration::from_secs(30);
/// A source that fails is tried again after so long, even where `reload` says longer.
const RETRY: Duration = Duration::from_secs(10);

/// Text that is sent to a server, and never shown: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(***)")
    }
}

/// A list somewhere, and how often it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where.
    pub from: Origin,
    /// `reload`.
    pub every: Duration,
}

/// Where a list is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `redis`.
    Redis(redis::Settings),
    /// `http`: text of lines.
    Http {
        /// `url`.
        url: Url,
        /// `timeout`: for all of it.
        timeout: Duration,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(settings) => settings.fmt(f),
            Self::Http { url, .. } => url.fmt(f),
        }
    }
}

/// Done when a source has been looked at for the first time, whatever came of it.
pub(crate) type FirstLook = oneshot::Receiver<()>;

/// Follows a list until the process stops: gives `apply` what it says whenever that is something else than before, and is told how
/// many entries that is. `list` is for the log: whose list it is.
pub(crate) fn follow(
    settings: Settings,
    list: String,
    shutdown: &Shutdown,
    apply: impl Fn(Place, &Listed) -> Result<usize, String> + Send + 'static,
) -> Result<FirstLook, TlsError> {
    let source = settings.from.to_string();
    let loader = Loader::new(&settings.from)?;
    let (looked, look) = oneshot::channel();
    let stop = shutdown.stop.clone();
    let mut follower = Follower { list, source, every: settings.every, seen: None, trouble: None };
    shutdown.tasks.spawn(async move {
        let mut looked = Some(looked);
        loop {
            let loaded = tokio::select! {
                loaded = loader.load() => loaded,
                () = stop.cancelled() => return,
            };
            follower.take(loaded, |listed| apply(loader.place(), listed));
            // Nobody may be waiting any more.
            looked.take().map(|looked| looked.send(()));
            if timeout(follower.pause(), stop.cancelled()).await.is_ok() {
                return;
            }
        }
    });
    Ok(look)
}

enum Loader {
    Redis(redis::Settings),
    Http { client: http::Client, timeout: Duration },
}

impl Loader {
    fn new(from: &Origin) -> Result<Self, TlsError> {
        Ok(match from {
            Origin::Redis(settings) => Self::Redis(settings.clone()),
            Origin::Http { url, timeout } => {
                let client = http::Client::new(url.clone(), None, *timeout, MAX_LIST, 0)?;
                Self::Http { client, timeout: *timeout }
            }
        })
    }

    fn place(&self) -> Place {
        match self {
            Self::Redis(_) => Place::Redis,
            Self::Http { .. } => Place::Http,
        }
    }

    async fn load(&self) -> Result<Listed, String> {
        match self {
            Self::Redis(settings) => {
                let late = || Err(format!("not read within {REDIS_TIMEOUT:?}"));
                timeout(REDIS_TIMEOUT, redis::load(settings)).await.unwrap_or_else(|_| late())
            }
            Self::Http { client, timeout: limit } => {
                let late = || Err(format!("not read within {limit:?} (http.timeout)"));
                let ask = http::Ask::default();
                let body = timeout(*limit, client.ask(&ask)).await.unwrap_or_else(|_| late())?;
                let text = String::from_utf8(body.into()).map_err(|_| "the body is not UTF-8")?;
                Ok(Listed::Text(text))
            }
        }
    }
}

/// What is known of one list.
#[derive(Debug)]
struct Follower {
    list: String,
    source: String,
    every: Duration,
    /// Digest of what it said last, and was taken; `None` before it said anything.
    seen: Option<[u8; 32]>,
    /// What it failed by last, and the log says.
    trouble: Option<String>,
}

impl Follower {
    fn pause(&self) -> Duration {
        if self.trouble.is_some() { self.every.min(RETRY) } else { self.every }
    }

    /// One look. The log has a line for each change: of what is listed, or of how the source fares.
    fn take(&mut self, loaded: Result<Listed, String>, apply: impl Fn(&Listed) -> Result<usize, String>) {
        let Self { list, source, seen, trouble, .. } = self;
        let taken = loaded.and_then(|listed| {
            let digest = digest(&listed);
            let entries = (*seen != Some(digest)).then(|| apply(&listed)).transpose()?;
            *seen = Some(digest);
            Ok(entries)
        });
        let error = match taken {
            Ok(entries) => {
                match entries {
                    Some(0) => warn!(list, source, "read, and nothing is listed there"),
                    Some(entries) => info!(list, source, entries, "read"),
                    None if trouble.is_some() => info!(list, source, "can be read again, and is as it was"),
                    None => {}
                }
                return *trouble = None;
            }
            Err(error) => error,
        };
        if trouble.as_ref() != Some(&error) {
            match seen {
                Some(_) => warn!(list, source, error, "not usable: what it said before stays"),
                None => warn!(list, source, error, "not usable: nothing comes from it until it is"),
            }
        }
        *trouble = Some(error);
    }
}

fn digest(listed: &Listed) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut put = |text: &str| {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    };
    match listed {
        Listed::Text(text) => put(text),
        Listed::Pairs(pairs) => pairs.iter().for_each(|(field, value)| {
            put(field);
            put(value);
        }),
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn follower(every: u64) -> Follower {
        let (list, source) = ("ingress \"i\"".to_owned(), "redis".to_owned());
        Follower { list, source, every: Duration::from_secs(every), seen: None, trouble: None }
    }

    fn text(text: &str) -> Result<Listed, String> {
        Ok(Listed::Text(text.to_owned()))
    }

    #[test]
    fn only_what_is_new_is_applied() {
        let mut follower = follower(1);
        let applied = RefCell::new(Vec::new());
        let apply = |listed: &Listed| match listed {
            Listed::Text(text) if text == "bad" => Err("line 1".to_owned()),
            listed => {
                applied.borrow_mut().push(listed.clone());
                Ok(1)
            }
        };
        for loaded in [
            text("a"),
            text("a"),
            Err("down".to_owned()),
            text("a"),
            text("bad"),
            text("bad"),
            text("a"),
            text("b"),
        ] {
            follower.take(loaded, apply);
        }
        assert_eq!(*applied.borrow(), [text("a").unwrap(), text("b").unwrap()]);
    }

    /// So that a source that is read once an hour is not missed for an hour.
    #[test]
    fn a_source_that_fails_is_tried_again_soon() {
        let mut follower = follower(3600);
        follower.take(Err("down".to_owned()), |_| Ok(0));
        assert_eq!(follower.pause(), RETRY);
        follower.take(text(""), |_| Ok(0));
        assert_eq!(follower.pause(), Duration::from_secs(3600));
        let mut often = self::follower(1);
        often.take(Err("down".to_owned()), |_| Ok(0));
        assert_eq!(often.pause(), Duration::from_secs(1));
    }

    #[test]
    fn lists_that_differ_have_other_digests() {
        let pairs = |list: &[(&str, &str)]| {
            Listed::Pairs(list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect())
        };
        assert_ne!(digest(&pairs(&[("a", "bc")])), digest(&pairs(&[("ab", "c")])));
        assert_ne!(digest(&pairs(&[("a", "b")])), digest(&pairs(&[])));
    }

    #[test]
    fn what_is_hidden_is_not_shown() {
        assert_eq!(format!("{:?}", Hidden("secret".to_owned())), "Hidden(***)");
    }
}
