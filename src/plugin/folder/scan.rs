//! One look at the folder: what is there, what has changed, what is still being written.

use super::Folder;
use crate::plugin::Source;
use crate::plugin::load::MAX_FILE;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::warn;

/// A file that has not changed for so long is taken to be whole.
const SETTLED: Duration = Duration::from_millis(200);

/// Files of one folder that are looked at. Without it a folder that somebody else writes to could keep the thread busy.
const MAX_PLUGINS: usize = 1000;

/// Longest configuration and decision table, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// What tells a file from another at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

pub(super) fn inode(path: &Path) -> Option<Inode> {
    fs::metadata(path).ok().map(|found| Inode { device: found.dev(), number: found.ino() })
}

/// What tells whether a file is still the same, as far as can be seen without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
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
    fn is_fresh(&self) -> bool {
        self.modified.is_none_or(|at| at.elapsed().map_or(true, |age| age < SETTLED))
    }
}

/// Code, configuration and decision table.
type Stamps = [Option<Stamp>; 3];

/// What was seen, and what was made of it.
#[derive(Debug, Default)]
pub(super) struct Scan {
    files: BTreeMap<String, Seen>,
    missing_told: bool,
    names_told: BTreeSet<String>,
}

#[derive(Debug)]
struct Seen {
    stamps: Stamps,
    since: Instant,
    /// The stamps of what was tried last.
    tried: Option<Stamps>,
    /// When to read once more what was tried so soon after it was written that it could have changed without a trace.
    again: Option<Instant>,
    /// The hash of what was tried last.
    content: Option<[u8; 32]>,
    /// It was there when the folder was looked at.
    present: bool,
}

impl Scan {
    /// Whether a file is being written, or may have been written once more since it was read.
    pub(super) fn is_pending(&self) -> bool {
        self.files
            .values()
            .any(|seen| seen.tried != Some(seen.stamps) || seen.again.is_some() || !seen.present)
    }

    /// Looks, and brings plugins into use or out of it. What cannot be read now is looked at again.
    pub(super) fn run(&mut self, folder: &Folder) {
        let dir = &folder.settings.dir;
        let found = match self.list(folder) {
            Ok(found) => found,
            Err(error) => {
                // Whoever exchanges the folder should not stop the traffic: its plugins stay until it is back.
                if !std::mem::replace(&mut self.missing_told, true) {
                    warn!(dir = %dir.display(), %error, "the plugin folder cannot be read: waiting for it");
                }
                return;
            }
        };
        self.missing_told = false;
        let mut changed = self.remove_gone(folder, &found);
        for (name, stamps) in found {
            changed |= self.look_at(folder, &name, stamps);
        }
        if changed {
            folder.list_ingress();
        }
    }

    fn list(&mut self, folder: &Folder) -> io::Result<BTreeMap<String, Stamps>> {
        let dir = &folder.settings.dir;
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let file = entry?.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".wasm")) else { continue };
            let other = folder.settings.only.as_ref().is_some_and(|only| only != name);
            if other || name.is_empty() || name.starts_with('.') {
                continue;
            }
            if !Folder::takes(name) {
                if self.names_told.insert(name.to_owned()) {
                    warn!(file = ?file, "not a plugin's name: letters, digits, dot, dash and underscore are taken");
                }
                continue;
            }
            // Links are followed; what is no file, or is gone again, is not there.
            let stamp = |ending: &str| {
                let found = fs::metadata(dir.join(format!("{name}{ending}"))).ok()?;
                found.is_file().then(|| Stamp::of(&found))
            };
            if let Some(code) = stamp(".wasm") {
                let stamps = [Some(code), stamp(".yaml"), stamp(".cases.yaml")];
                found.insert(name.to_owned(), stamps);
            }
            if found.len() == MAX_PLUGINS {
                warn!(dir = %dir.display(), "more than {MAX_PLUGINS} plugins: the others are left out");
                break;
            }
        }
        Ok(found)
    }

    /// Plugins whose files are gone, for long enough that nobody is putting others in their place.
    fn remove_gone(&mut self, folder: &Folder, found: &BTreeMap<String, Stamps>) -> bool {
        let mut changed = false;
        self.files.retain(|name, seen| {
            if found.contains_key(name) {
                seen.present = true;
                return true;
            }
            if std::mem::replace(&mut seen.present, false) {
                seen.since = Instant::now();
            }
            if seen.since.elapsed() < SETTLED {
                return true;
            }
            folder.named(name).iter().for_each(|(_, plugin)| plugin.remove());
            changed = true;
            false
        });
        changed
    }

    fn look_at(&mut self, folder: &Folder, name: &str, stamps: Stamps) -> bool {
        let now = Instant::now();
        let new = || Seen { stamps, since: now, tried: None, again: None, content: None, present: true };
        let seen = self.files.entry(name.to_owned()).or_insert_with(new);
        if seen.stamps != stamps {
            (seen.stamps, seen.since) = (stamps, now);
        }
        let again = seen.again.is_some_and(|at| at <= now);
        (seen.tried != Some(stamps) || again) && seen.try_out(folder, name)
    }
}

impl Seen {
    /// Reads the files and, if they say anything new, takes them into use; whether the plugin's version changed.
    fn try_out(&mut self, folder: &Folder, name: &str) -> bool {
        let source = match read(&folder.settings.dir, name) {
            Ok(source) => source,
            // Being exchanged at this moment: there will be another look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                if self.tried.replace(self.stamps) != Some(self.stamps) {
                    folder.named(name).iter().for_each(|(_, plugin)| plugin.not_taken(&error));
                }
                self.again = None;
                return false;
            }
        };
        let half_written = self.since.elapsed() < SETTLED && looks_cut(&source.code);
        if half_written {
            return false;
        }
        self.tried = Some(self.stamps);
        // A file from the future is fresh for as long as any other.
        let fresh = self.since.elapsed() < SETTLED && self.stamps.iter().flatten().any(Stamp::is_fresh);
        self.again = fresh.then(|| Instant::now() + SETTLED);
        let content = hash(&source);
        if self.content.replace(content) == Some(content) {
            return false;
        }
        let mut changed = false;
        for (config, plugin) in folder.named(name) {
            let config = config.unwrap_or_else(|| source.config.clone());
            // A failure was logged, and stands in the plugin's status.
            changed |= plugin.install(&Source { config, ..source.clone() }).is_ok();
        }
        changed
    }
}

/// Whether this is no whole module: its writer has begun, perhaps, and not ended.
fn looks_cut(code: &[u8]) -> bool {
    wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all()).validate_all(code).is_err()
}

fn read(dir: &Path, name: &str) -> io::Result<Source> {
    let text = |ending: &str| -> io::Result<Option<String>> {
        match read_bounded(&dir.join(format!("{name}{ending}")), MAX_TEXT) {
            Ok(bytes) => String::from_utf8(bytes)
                .map(Some)
                .map_err(|e| io::Error::other(format!("{name}{ending} is not UTF-8: {e}"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    };
    Ok(Source {
        code: read_bounded(&dir.join(format!("{name}.wasm")), MAX_FILE)?,
        config: text(".yaml")?.unwrap_or_default(),
        cases: text(".cases.yaml")?,
    })
}

fn read_bounded(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::other(format!("{} has more than {max} bytes", path.display())));
    }
    Ok(bytes)
}

fn hash(source: &Source) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in
        [&source.code[..], source.config.as_bytes(), source.cases.as_deref().unwrap_or("\0").as_bytes()]
    {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{CompiledCache, FolderSettings, Limits, Runtime};

    /// A time that lies ahead is no reason to read a file again and again.
    #[tokio::test(start_paused = true)]
    async fn a_file_from_the_future_is_settled_like_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.wasm");
        fs::write(&file, "no plugin").unwrap();
        let ahead = SystemTime::now() + Duration::from_secs(1_000_000);
        File::options().append(true).open(&file).unwrap().set_modified(ahead).unwrap();
        let runtime = Runtime::new(Limits::default(), CompiledCache::default()).unwrap();
        let folder = Folder::new(&runtime, FolderSettings::new(dir.path().to_owned()));
        let mut scan = Scan::default();
        scan.run(&folder);
        assert!(scan.is_pending(), "it may not be whole yet");
        for _ in 0..2 {
            tokio::time::advance(SETTLED).await;
            scan.run(&folder);
        }
        assert!(!scan.is_pending());
        assert!(folder.status()[0].last_error.as_ref().unwrap().contains("not WebAssembly"));
    }
}
