//! The index that finds, for one path, what is filed under the path itself and under its beginnings.
//!
//! Like [`super::hosts::HostMap`], it is filled once and then only read. A beginning ends anywhere, not only at a slash: that is
//! how GOST compares the path of a filter and of `PathPrefix`.

/// Paths to what is said about them.
///
/// Sorted: every path between a beginning of the path looked up and that path itself has the same beginning. So all beginnings
/// are among the nearest entry before the path and those that this entry in turn begins with. A look-up costs one binary search,
/// and then steps bounded by the length of one entry.
#[derive(Debug)]
pub(crate) struct PathMap<T>(Box<[Entry<T>]>);

#[derive(Debug)]
struct Entry<T> {
    path: Box<[u8]>,
    /// The longest other path that `path` begins with.
    parent: Option<usize>,
    value: T,
}

impl<T> PathMap<T> {
    /// `paths` must be sorted, each path once.
    pub(crate) fn from_sorted(paths: impl ExactSizeIterator<Item = (Box<[u8]>, T)>) -> Self {
        let mut entries: Vec<Entry<T>> = Vec::with_capacity(paths.len());
        for (path, value) in paths {
            let mut parent = entries.len().checked_sub(1);
            while let Some(at) = parent.filter(|at| !path.starts_with(&entries[*at].path)) {
                parent = entries[at].parent;
            }
            entries.push(Entry { path, parent, value });
        }
        Self(entries.into())
    }

    /// What is filed under the beginnings of `path`, the longest first.
    pub(crate) fn walk<'a, 'p>(&'a self, path: &'p [u8]) -> impl Iterator<Item = &'a T> + use<'a, 'p, T> {
        let nearest = self.0.partition_point(|entry| &*entry.path <= path).checked_sub(1);
        std::iter::successors(nearest, |at| self.0[*at].parent)
            .map(move |at| &self.0[at])
            .filter(move |entry| path.starts_with(&entry.path))
            .map(|entry| &entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn every_beginning_is_found_the_longest_first(
            paths in prop::collection::btree_set("[/ab]{0,4}", 0..12), path in "[/ab]{0,6}",
        ) {
            let map = PathMap::from_sorted(paths.iter().map(|path| (path.as_bytes().into(), path.clone())));
            let found: Vec<_> = map.walk(path.as_bytes()).cloned().collect();
            let expected: BTreeSet<_> = paths.into_iter().filter(|start| path.starts_with(start)).collect();
            prop_assert_eq!(found, expected.into_iter().rev().collect::<Vec<_>>());
        }
    }
}
