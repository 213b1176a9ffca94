//! Host patterns compiled into two hash maps: the cost of a look-up depends on the labels of the host, not on the patterns.

use crate::addr::{Host, InvalidAddr};
use std::collections::HashMap;

/// `example.com`, or `.example.com` / `*.example.com` for it and everything below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host only.
    Exact(Host),
    /// This host and everything below, at a label boundary.
    Suffix(Host),
}

impl HostPattern {
    /// Parses a pattern as written; one leading `*` is dropped (section 2.6 of the wire specification).
    pub fn parse(text: &str) -> Result<Self, InvalidAddr> {
        let text = text.strip_prefix('*').unwrap_or(text);
        match text.strip_prefix('.') {
            Some(parent) => Host::parse(parent).map(Self::Suffix),
            None => Host::parse(text).map(Self::Exact),
        }
    }
}

/// Values by host pattern.
#[derive(Debug)]
pub(crate) struct HostMap<T> {
    exact: HashMap<Host, T>,
    suffix: HashMap<Host, T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), suffix: HashMap::new() }
    }
}

impl<T> HostMap<T> {
    /// The value of a pattern, made if there is none.
    pub(crate) fn entry(&mut self, pattern: HostPattern) -> &mut T
    where
        T: Default,
    {
        match pattern {
            HostPattern::Exact(host) => self.exact.entry(host).or_default(),
            HostPattern::Suffix(host) => self.suffix.entry(host).or_default(),
        }
    }

    /// The values that match, most specific first: exact, then the longest suffix.
    pub(crate) fn matches<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a T> {
        let text = host.as_str();
        let starts = std::iter::once(0).chain(text.match_indices('.').map(|(at, _)| at + 1));
        let suffixes = starts.filter_map(move |at| text.get(at..));
        let parents = suffixes.filter_map(|parent| self.suffix.get(parent));
        self.exact.get(text).into_iter().chain(parents).filter(move |_| !host.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(pattern: &HostPattern, host: &Host) -> Option<usize> {
        match pattern {
            HostPattern::Exact(p) => (p == host).then_some(usize::MAX),
            HostPattern::Suffix(p) => {
                let below = host.as_str().strip_suffix(p.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (p == host || below).then_some(p.as_str().len())
            }
        }
    }

    proptest! {
        #[test]
        fn the_map_finds_what_a_walk_over_all_patterns_finds(
            patterns in prop::collection::vec("(\\*?\\.)?[ab](\\.[ab]){0,3}", 0..12),
            host in "[ab](\\.[ab]){0,4}",
        ) {
            let host = Host::parse(&host).unwrap();
            let mut map = HostMap::<Vec<usize>>::default();
            let patterns: Vec<_> = patterns.iter().map(|p| HostPattern::parse(p).unwrap()).collect();
            for (i, pattern) in patterns.iter().enumerate() {
                map.entry(pattern.clone()).push(i);
            }
            let found: Vec<_> = map.matches(&host).flatten().copied().collect();
            let mut expected: Vec<_> = (0..patterns.len()).filter(|&i| naive(&patterns[i], &host).is_some()).collect();
            expected.sort_by_key(|&i| (std::cmp::Reverse(naive(&patterns[i], &host)), i));
            prop_assert_eq!(found, expected);
        }
    }
}
