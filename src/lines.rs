//! Lists of one thing a line, read anew when they change: who may come in, which host belongs where. Files are read here, what
//! comes from elsewhere by `source`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// More is no list that somebody keeps.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// A file, and how often it is looked whether it has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `file.path`.
    pub path: PathBuf,
    /// `reload`.
    pub every: Duration,
}

/// What a list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listed {
    /// Lines.
    Text(String),
    /// What would stand in two columns.
    Pairs(Vec<(String, String)>),
}

impl Listed {
    /// Whether nothing at all was said, not even a comment.
    pub(crate) fn is_blank(&self) -> bool {
        match self {
            Self::Text(text) => text.trim_start_matches('\u{feff}').trim().is_empty(),
            Self::Pairs(pairs) => pairs.is_empty(),
        }
    }
}

/// Where a list comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    File,
    Redis,
    Http,
}

/// The entries of several lists, each of which is replaced as a whole. What stands in a later one stands above the earlier ones.
#[derive(Debug)]
pub(crate) struct Lists<T>([Vec<T>; 3]);

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self([Vec::new(), Vec::new(), Vec::new()])
    }
}

impl<T: Clone> Lists<T> {
    pub(crate) fn replace(&mut self, place: Place, entries: Vec<T>) {
        self.0[place as usize] = entries;
    }

    /// Whether nothing comes from there.
    pub(crate) fn is_empty(&self, place: Place) -> bool {
        self.0[place as usize].is_empty()
    }

    /// All of them, behind `inline`.
    pub(crate) fn all(&self, inline: &[T]) -> Vec<T> {
        [inline, &self.0.concat()].concat()
    }
}

/// The lines that say something, counted from 1: what follows a `#` at the beginning or behind a blank is a comment.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let without_comment = |line: &'_ str| -> usize {
        let comment = |(at, _): &(usize, &str)| *at == 0 || line[..*at].ends_with([' ', '\t']);
        line.match_indices('#').find(comment).map_or(line.len(), |(at, _)| at)
    };
    let numbered = text.trim_start_matches('\u{feff}').lines().enumerate();
    numbered
        .map(move |(index, line)| (index + 1, line[..without_comment(line)].trim()))
        .filter(|(_, line)| !line.is_empty())
}

/// The whole file.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let found = fs::metadata(path)?;
    // A device or a pipe might have no end.
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(io::Error::other("no file of at most 64 MiB"));
    }
    fs::read_to_string(path)
}

/// Size, time and inode: when none of them has changed a file is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(u64, SystemTime, u64)>);

impl Stamp {
    pub(crate) fn of(path: &Path) -> Self {
        let found = fs::metadata(path).ok();
        Self(found.and_then(|found| Some((found.len(), found.modified().ok()?, found.ino()))))
    }
}

/// Until `stop`: gives `apply` what the file says each time that it has changed since `seen`. While it cannot be read, or `apply`
/// finds it wrong, what was applied last stays, and a warning says so once for each change.
pub(crate) async fn follow(
    settings: Settings,
    mut seen: Stamp,
    stop: CancellationToken,
    apply: impl Fn(&str) -> Result<(), String>,
) {
    let Settings { path, every } = settings;
    while timeout(every, stop.cancelled()).await.is_err() {
        let (file, before) = (path.clone(), seen);
        let look = spawn_blocking(move || {
            let stamp = Stamp::of(&file);
            (stamp != before).then(|| (stamp, read(&file)))
        });
        let Ok(Some((stamp, text))) = look.await else { continue };
        seen = stamp;
        match text.map_err(|error| error.to_string()).and_then(|text| apply(&text)) {
            Ok(()) => info!(file = %path.display(), "read anew"),
            Err(error) => {
                warn!(file = %path.display(), error, "has changed and is not usable: what it said before stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_say_nothing() {
        let text = "# all\n\na b\r\n  c\t# comment\n#d\n e#f \n \t \n";
        assert_eq!(lines(text).collect::<Vec<_>>(), [(3, "a b"), (4, "c"), (6, "e#f")]);
        assert_eq!(lines("\u{feff}a b\n").collect::<Vec<_>>(), [(1, "a b")], "a byte order mark");
    }

    #[test]
    fn only_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_err());
        assert!(read(&dir.path().join("none")).is_err());
        assert!(read(Path::new("/dev/zero")).is_err());
    }
}
