//! Host patterns as GOST writes them, and the index that finds the patterns of one host.
//!
//! A leading `*` or dot means different things in an ingress, a `filter.host` and a `Host(...)` rule; each has its own
//! constructor here, and all share one comparison with a label boundary. [`HostMap`] is filled once and then only read: a
//! look-up walks up the labels of the host, so its cost depends on the host and not on the number of patterns. What an entry
//! holds, and which of the entries found wins, is its owner's choice.

use crate::addr::{Host, InvalidAddr};
use std::collections::HashMap;
use std::fmt;

/// Which hosts are meant; names are in the normal form of [`Host`] and never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This host.
    Exact(Box<str>),
    /// This host and every name under it.
    Within(Box<str>),
    /// Every name under this host, but not the host.
    Below(Box<str>),
}

impl HostPattern {
    /// `filter.host`: `x` is exact; `.x`, `*.x` and `*x` are all `x` and what is under it; `None`, for `*` or nothing: any host.
    pub fn from_filter(text: &str) -> Result<Option<Self>, InvalidAddr> {
        let text = text.trim();
        Ok(match text.strip_prefix('*') {
            Some("") => None,
            None if text.is_empty() => None,
            Some(rest) => Some(Self::Within(name(rest.strip_prefix('.').unwrap_or(rest))?)),
            None => Some(match text.strip_prefix('.') {
                Some(rest) => Self::Within(name(rest)?),
                None => Self::Exact(name(text)?),
            }),
        })
    }

    /// `hostname` of an ingress rule: one `*` in front is dropped, then `.x` is `x` and what is under it, and `x` is exact.
    pub fn from_ingress(text: &str) -> Result<Self, InvalidAddr> {
        let text = text.trim();
        let text = text.strip_prefix('*').unwrap_or(text);
        Ok(match text.strip_prefix('.') {
            Some(rest) => Self::Within(name(rest)?),
            None => Self::Exact(name(text)?),
        })
    }

    /// `Host(...)` of a matcher rule: `x` is exact; `.x`, `*.x` and `*x` are what is under `x`.
    pub fn from_rule(text: &str) -> Result<Self, InvalidAddr> {
        let text = text.trim();
        let rest = text.strip_prefix('*');
        let below = rest.unwrap_or(text);
        Ok(match below.strip_prefix('.').or(rest) {
            Some(parent) => Self::Below(name(parent)?),
            None => Self::Exact(name(text)?),
        })
    }

    /// The name that the pattern is about: the key to file it under in a [`HostMap`].
    pub fn name(&self) -> &str {
        match self {
            Self::Exact(name) | Self::Within(name) | Self::Below(name) => name,
        }
    }

    /// Whether `host` is meant.
    pub fn matches(&self, host: &Host) -> bool {
        let host = host.as_str();
        match self {
            Self::Exact(name) => host == &**name,
            Self::Within(name) => host == &**name || is_below(host, name),
            Self::Below(name) => is_below(host, name),
        }
    }
}

impl fmt::Display for HostPattern {
    /// As it is written in `filter.host`, which has no word for [`Self::Below`]: that is as in a rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Within(name) | Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// Whether `host` has at least one label more than `parent`, in front of it.
fn is_below(host: &str, parent: &str) -> bool {
    host.strip_suffix(parent).is_some_and(|front| front.ends_with('.'))
}

fn name(text: &str) -> Result<Box<str>, InvalidAddr> {
    let host = Host::parse(text)?;
    if host.is_empty() { Err(InvalidAddr::EmptyLabel) } else { Ok(host.as_str().into()) }
}

/// Names to what is said about them, found for a host by walking from the host up to its last label.
///
/// The hash is the standard library's keyed SipHash: names may come from files that others write, and nobody who can choose
/// names must be able to choose collisions.
#[derive(Debug)]
pub(crate) struct HostMap<T> {
    entries: HashMap<Box<str>, T>,
    /// Length of the longest name: longer suffixes of a host are not even hashed.
    longest: usize,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl<T> HostMap<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { entries: HashMap::with_capacity(capacity), longest: 0 }
    }

    /// The entry of `name`, made if it is not there.
    pub(crate) fn entry(&mut self, name: &str) -> &mut T
    where
        T: Default,
    {
        self.longest = self.longest.max(name.len());
        self.entries.entry(name.into()).or_default()
    }

    /// The same names with other entries; spare room is given back.
    pub(crate) fn map<U>(self, mut change: impl FnMut(T) -> U) -> HostMap<U> {
        let entries = self.entries.into_iter().map(|(name, entry)| (name, change(entry))).collect();
        HostMap { entries, longest: self.longest }
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries of `host` itself and of its parents, nearest first, each with its name. The empty host has none.
    pub(crate) fn walk<'a, 'h>(
        &'a self,
        host: &'h str,
    ) -> impl Iterator<Item = (&'h str, &'a T)> + use<'a, 'h, T> {
        names(host, self.longest).filter_map(move |name| Some((name, self.entries.get(name)?)))
    }
}

/// What is looked up for a host: itself and its parents, nearest first, if not longer than `longest`. One hash each, however
/// many names are filed.
fn names(host: &str, longest: usize) -> impl Iterator<Item = &str> {
    let first = Some(host).filter(|host| !host.is_empty());
    std::iter::successors(first, |name| name.split_once('.').map(|(_, parent)| parent))
        .filter(move |name| name.len() <= longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(pattern: &HostPattern) -> Vec<&'static str> {
        let hosts = ["example.com", "a.example.com", "b.a.example.com", "badexample.com", "com", ""];
        hosts.into_iter().filter(|h| pattern.matches(&Host::parse(h).unwrap())).collect()
    }

    #[test]
    fn each_place_reads_stars_and_dots_its_own_way() {
        let within = ["example.com", "a.example.com", "b.a.example.com"];
        for text in [".example.com", "*.example.com", "*example.com", " *.EXAMPLE.com. "] {
            assert_eq!(matching(&HostPattern::from_filter(text).unwrap().unwrap()), within, "{text}");
            assert_eq!(matching(&HostPattern::from_rule(text).unwrap()), within[1..], "{text}");
        }
        for text in [".example.com", "*.example.com", "*.Example.com."] {
            assert_eq!(matching(&HostPattern::from_ingress(text).unwrap()), within, "{text}");
        }
        for text in ["example.com", "Example.Com."] {
            assert_eq!(matching(&HostPattern::from_filter(text).unwrap().unwrap()), within[..1], "{text}");
            assert_eq!(matching(&HostPattern::from_ingress(text).unwrap()), within[..1], "{text}");
            assert_eq!(matching(&HostPattern::from_rule(text).unwrap()), within[..1], "{text}");
        }
        assert_eq!(matching(&HostPattern::from_ingress("*example.com").unwrap()), within[..1]);
    }

    #[test]
    fn what_is_no_pattern() {
        for text in ["", " ", "*"] {
            assert_eq!(HostPattern::from_filter(text), Ok(None), "{text}");
        }
        for text in ["", "*", ".", "*.", "**.x", "..x", "a b", "x:80", "*.*.x", "é"] {
            assert!(HostPattern::from_ingress(text).is_err(), "{text}");
            assert!(HostPattern::from_rule(text).is_err(), "{text}");
        }
        for text in [".", "*.", "**.x", "..x", "a b", "x:80"] {
            assert!(HostPattern::from_filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_walk_goes_from_the_host_to_its_last_label() {
        let mut map = HostMap::with_capacity(0);
        for (value, name) in ["c", "b.c", "a.b.c", "x.b.c"].into_iter().enumerate() {
            *map.entry(name) = value;
        }
        let walk = |host: &str| map.walk(host).map(|(name, v)| (name == host, *v)).collect::<Vec<_>>();
        assert_eq!(walk("a.b.c"), [(true, 2), (false, 1), (false, 0)]);
        assert_eq!(walk("very.long.name.under.b.c"), [(false, 1), (false, 0)]);
        assert_eq!(walk("c"), [(true, 0)]);
        assert_eq!(walk("xc"), []);
        assert_eq!(walk(""), []);
    }

    /// A look-up among 100,000 names hashes what one among ten does: no more than the labels of the host.
    #[test]
    fn the_cost_of_a_walk_is_the_hosts() {
        for count in [10, 100_000] {
            let mut map = HostMap::with_capacity(count);
            (0..count).for_each(|i| *map.entry(&format!("h{i}.example.com")) = i);
            assert_eq!(map.len(), count);
            assert_eq!(names("h7.example.com", map.longest).count(), 3);
            assert_eq!(map.walk("x.h7.example.com").collect::<Vec<_>>(), [("h7.example.com", &7)]);
            assert!(names(&format!("a{}", ".a".repeat(119)), map.longest).count() <= map.longest / 2);
        }
    }
}
