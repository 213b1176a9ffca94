//! What tells a file from what it was, as far as can be seen without reading it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file that has not changed for so long is taken to be whole.
pub(super) const SETTLED: Duration = Duration::from_millis(200);

/// Endings of the files of one plugin: code, configuration and decision table.
pub(super) const ENDINGS: [&str; 3] = [".wasm", ".yaml", ".cases.yaml"];

/// One for each ending.
pub(super) type Stamps = [Option<Stamp>; 3];

/// What tells a file from another at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

pub(super) fn inode(path: &Path) -> Option<Inode> {
    fs::metadata(path).ok().map(|found| Inode { device: found.dev(), number: found.ino() })
}

/// What tells whether a file is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: Inode,
    size: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            inode: Inode { device: found.dev(), number: found.ino() },
            size: found.len(),
            modified: found.modified().ok(),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether it could be written once more without a trace: clocks of files tick slowly.
    pub(super) fn is_fresh(&self) -> bool {
        self.modified.is_none_or(|at| at.elapsed().map_or(true, |age| age < SETTLED))
    }
}

/// The files of one plugin. Links are followed. A folder with the name of a plugin is none; what else is no file will be told of.
pub(super) fn stamps(dir: &Path, name: &str) -> Stamps {
    ENDINGS.map(|ending| {
        let found = fs::metadata(dir.join(format!("{name}{ending}"))).ok()?;
        (found.is_file() || ending != ENDINGS[0]).then(|| Stamp::of(&found))
    })
}
