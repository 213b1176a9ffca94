//! Host patterns as GOST writes them, and the index that finds the patterns of one host.
//!
//! A leading `*` or dot means different things in an ingress, a `filter.host` and a `Host(...)` rule; each has its own
//! constructor here, and all share one comparison with a label boundary. [`HostMap`] is filled once and then only read: a
//! look-up walks up the labels of the host, so its cost depends on the host and not on the number of patterns. What an entry
//! holds, and which of the entries found wins, is its owner's choice.

use crate::addr::{Host, InvalidAddr};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Which hosts are meant; names are in the normal form of [`Host`] and never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This host.
    Exact(Host),
    /// This host and every name under it.
    Within(Host),
    /// Every name under this host, but not the host.
    Below(Host),
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
            Self::Exact(name) | Self::Within(name) | Self::Below(name) => name.as_str(),
        }
    }

    /// Whether `host` is meant.
    pub fn matches(&self, host: &Host) -> bool {
        let (host, name) = (host.as_str(), self.name());
        match self {
            Self::Exact(_) => host == name,
            Self::Within(_) => host == name || is_below(host, name),
            Self::Below(_) => is_below(host, name),
        }
    }
}

impl fmt::Display for HostPattern {
    /// As it is written in `filter.host`, which has no word for [`Self::Below`]: that is as in a rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Within(name) | Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// Whether `host` has at least one label more than `parent`, in front of it.
fn is_below(host: &str, parent: &str) -> bool {
    host.strip_suffix(parent).is_some_and(|front| front.ends_with('.'))
}

fn name(text: &str) -> Result<Host, InvalidAddr> {
    let host = Host::parse(text)?;
    if host.is_empty() { Err(InvalidAddr::EmptyLabel) } else { Ok(host) }
}

/// Names to what is said about them, found for a host by walking from the host up to its last label.
///
/// It is a table of our own so that the names stand in one piece: of a hundred thousand, each with an allocation of its own, those
/// would be half of the memory, and keep all memory around them from going back to the system.
///
/// The hash is the standard library's keyed SipHash: names may come from files that others write, and nobody who can choose
/// names must be able to choose collisions.
pub(crate) struct HostMap<T> {
    /// All names, one behind the other.
    names: String,
    /// In the order in which they were made.
    entries: Vec<Entry<T>>,
    /// Where the entry of a name is: from the slot that its hash says on, before the first empty one. A power of two, at least
    /// half of them empty.
    slots: Box<[Slot]>,
    hasher: RandomState,
    /// Length of the longest name: longer suffixes of a host are not even hashed.
    longest: usize,
    /// Length of the shortest one: a walk need not go on to shorter suffixes.
    shortest: usize,
}

/// What is said about a name, and where in [`HostMap::names`] that is.
struct Entry<T> {
    start: u32,
    end: u32,
    value: T,
}

/// The number of an entry, [`NONE`] for none, and the part of its name's hash that does not say where to look.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    entry: u32,
}

const NONE: u32 = u32::MAX;

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl<T> fmt::Debug for HostMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMap").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T> HostMap<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            names: String::new(),
            entries: Vec::with_capacity(capacity),
            slots: empty_slots(capacity),
            hasher: RandomState::new(),
            longest: 0,
            shortest: usize::MAX,
        }
    }

    /// The entry of `name`, made if it is not there.
    pub(crate) fn entry(&mut self, name: &str) -> &mut T
    where
        T: Default,
    {
        let hash = self.hash(name);
        let place = self.find(name, hash).unwrap_or_else(|slot| self.add(name, hash, slot));
        &mut self.entries[place].value
    }

    fn add(&mut self, name: &str, hash: u64, slot: usize) -> usize
    where
        T: Default,
    {
        let place = self.entries.len();
        let [start, end] = [self.names.len(), self.names.len() + name.len()].map(number);
        self.names.push_str(name);
        self.longest = self.longest.max(name.len());
        self.shortest = self.shortest.min(name.len());
        self.entries.push(Entry { start, end, value: T::default() });
        self.slots[slot] = Slot { hash: rest(hash), entry: number(place) };
        if self.entries.len() * 2 > self.slots.len() {
            self.spread();
        }
        place
    }

    /// Makes room for as many names again.
    fn spread(&mut self) {
        self.slots = empty_slots(self.entries.len() * 2);
        for place in 0..self.entries.len() {
            let hash = self.hash(self.name(place));
            if let Err(slot) = self.find(self.name(place), hash) {
                self.slots[slot] = Slot { hash: rest(hash), entry: number(place) };
            }
        }
    }

    /// The same names with other entries; spare room is given back.
    pub(crate) fn map<U>(mut self, mut change: impl FnMut(T) -> U) -> HostMap<U> {
        self.names.shrink_to_fit();
        let changed = |Entry { start, end, value }| Entry { start, end, value: change(value) };
        let entries = self.entries.into_iter().map(changed).collect();
        let Self { names, slots, hasher, longest, shortest, .. } = self;
        HostMap { names, entries, slots, hasher, longest, shortest }
    }

    /// What is said about all names, in the order in which they were made.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|entry| &entry.value)
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
        let not_too_short = |name: &&str| name.len() >= self.shortest;
        names(host, self.longest).take_while(not_too_short).filter_map(move |name| {
            let place = self.find(name, self.hash(name)).ok()?;
            Some((name, &self.entries[place].value))
        })
    }

    /// Of the name's bytes alone: the mark behind them that `str` adds would tell apart nothing here.
    fn hash(&self, name: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The place of a name among the entries, or the slot that it would get.
    fn find(&self, name: &str, hash: u64) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let Slot { hash: known, entry } = self.slots[slot];
            if entry == NONE {
                return Err(slot);
            }
            if known == rest(hash) && self.is_at(entry as usize, name) {
                return Ok(entry as usize);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Eight bytes at a time: the comparison of slices takes them one by one in WebAssembly, and five times as long.
    fn is_at(&self, place: usize, name: &str) -> bool {
        let (known, name) = (self.name(place).as_bytes(), name.as_bytes());
        let ((known_eights, known_rest), (eights, rest)) = (known.as_chunks::<8>(), name.as_chunks());
        known_eights.iter().eq(eights) && known_rest.iter().eq(rest)
    }

    fn name(&self, place: usize) -> &str {
        let Entry { start, end, .. } = self.entries[place];
        &self.names[start as usize..end as usize]
    }
}

/// For so many names, and one slot that stays empty.
fn empty_slots(names: usize) -> Box<[Slot]> {
    vec![Slot { hash: 0, entry: NONE }; (names * 2 + 1).next_power_of_two()].into()
}

/// The part of a hash that is kept beside an entry.
fn rest(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Files and lists that names come from have megabytes.
fn number(count: usize) -> u32 {
    u32::try_from(count).expect("fewer than 4 GiB of names")
}

/// What is looked up for a host: itself and its parents, nearest first, if not longer than `longest`. One hash each, however
/// many names are filed.
fn names(host: &str, longest: usize) -> impl Iterator<Item = &str> {
    // Byte by byte and no further than is asked for: most hosts are found before the first dot is.
    let behind_dots = host.bytes().zip(1..).filter(|(byte, _)| *byte == b'.').map(|(_, behind)| behind);
    let first = Some(0).filter(|_| !host.is_empty());
    first.into_iter().chain(behind_dots).map(|start| &host[start..]).filter(move |name| name.len() <= longest)
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

    #[test]
    fn every_name_is_found_however_many_there_are() {
        let mut map: HostMap<usize> = HostMap::default();
        for count in 0..3000 {
            let name = |i: usize| format!("h{i}.{}example", "a.".repeat(i % 5));
            *map.entry(&name(count)) = count;
            *map.entry(&name(count / 2)) += 0;
            assert_eq!(map.len(), count + 1);
            assert_eq!(map.walk(&name(count + 1)).next(), None);
            for i in [0, count / 3, count] {
                assert_eq!(map.walk(&name(i)).next(), Some((&*name(i), &i)));
            }
        }
        let texts = map.map(|i| i.to_string());
        assert_eq!(texts.walk("h7.a.a.example").next(), Some(("h7.a.a.example", &"7".to_owned())));
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
