//! Being told of changes: in the folder, and of every path that leads to it or from a link in it to a file. A link may be made to
//! lead elsewhere, and the folder, or one that it lies in, may be exchanged.

use super::news::News;
use super::stamp::{ENDINGS, Inode, inode};
use super::{Event, FolderSettings};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::warn;

/// As many links as the system follows.
const MAX_LINKS: usize = 40;

pub(super) struct Watch {
    wake: SyncSender<Event>,
    watcher: Option<RecommendedWatcher>,
    /// Paths, and what they were when they were watched.
    watched: Vec<(PathBuf, Option<Inode>)>,
    /// A path to the folder came or went since it was watched. Its inode need not tell: a new folder may get that of the old one.
    exchanged: Arc<AtomicBool>,
    news: Arc<Mutex<News>>,
    failure_told: bool,
}

impl Watch {
    pub(super) fn new(wake: SyncSender<Event>) -> Self {
        let (watcher, watched) = (None, Vec::new());
        Self { wake, watcher, watched, exchanged: Arc::default(), news: Arc::default(), failure_told: false }
    }

    pub(super) fn news(&self) -> MutexGuard<'_, News> {
        lock(&self.news)
    }

    /// Watches anew if any of the paths is another than it was; whether the system tells of changes.
    pub(super) fn renew(&mut self, settings: &FolderSettings) -> bool {
        if !settings.told {
            return false;
        }
        let dir = &settings.dir;
        let way = ways(dir);
        let mut around: Vec<_> = way.iter().filter_map(|path| path.parent()).collect();
        around.sort_unstable();
        around.dedup();
        let all = way.iter().map(PathBuf::as_path).chain(around.iter().copied());
        let now: Vec<_> = all.map(|path| (path.to_owned(), inode(path))).collect();
        let exchanged = self.exchanged.swap(false, Ordering::Relaxed);
        if exchanged || now != self.watched || self.watcher.is_none() {
            self.watcher = None;
            self.news().forget();
            match self.start(dir, &way, &around) {
                Ok(watcher) => (self.watcher, self.failure_told) = (Some(watcher), false),
                Err(error) if !std::mem::replace(&mut self.failure_told, true) => {
                    warn!(dir = %dir.display(), %error, "no news of changes here: the plugin folder is polled");
                }
                Err(_) => {}
            }
            self.watched = now;
        }
        self.watcher.is_some()
    }

    fn start(&self, dir: &Path, way: &[PathBuf], around: &[&Path]) -> notify::Result<RecommendedWatcher> {
        let names: Vec<_> = way.iter().filter_map(|path| path.file_name().map(ToOwned::to_owned)).collect();
        let (wake, folder) = (self.wake.clone(), dir.to_owned());
        let (exchanged, news) = (Arc::clone(&self.exchanged), Arc::clone(&self.news));
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event {
                let leads = event.paths.iter().any(|path| is_named(&names, path.file_name()));
                if says_nothing(&event, folder.file_name(), leads) {
                    return;
                }
                exchanged.fetch_or(leads, Ordering::Relaxed);
                lock(&news).hear(&event, &folder);
            }
            // A full channel will wake the thread as well.
            let _ = wake.try_send(Event::Look);
        })?;
        let around = around.iter().map(|path| watcher.watch(path, RecursiveMode::NonRecursive));
        let around = around.fold(Ok(()), Result::and);
        match watcher.watch(dir, RecursiveMode::NonRecursive) {
            Ok(()) => Ok(watcher),
            // The folder is missing; those around it tell when it comes.
            Err(_) if !dir.exists() => around.map(|()| watcher),
            Err(error) => Err(error),
        }
    }
}

fn lock(news: &Mutex<News>) -> MutexGuard<'_, News> {
    news.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_named(names: &[OsString], name: Option<&OsStr>) -> bool {
    name.is_some_and(|name| names.iter().any(|of| of == name))
}

/// Whether an event is about reading only, or about something else beside the folder of that name or a link that leads to it: a log
/// file, perhaps, that is written to all the time.
fn says_nothing(event: &notify::Event, folder: Option<&OsStr>, leads: bool) -> bool {
    if matches!(event.kind, EventKind::Access(_)) && !ends_writing(event) {
        return true;
    }
    let inside = || event.paths.iter().any(|path| path.parent().and_then(Path::file_name) == folder);
    folder.is_some() && !event.paths.is_empty() && !leads && !inside()
}

fn ends_writing(event: &notify::Event) -> bool {
    event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

/// All paths that lead to the folder, and to the files of plugins that are links.
fn ways(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_file = |name: &OsStr| name.to_str().is_some_and(|name| ENDINGS.iter().any(|e| name.ends_with(e)));
    let links = entries
        .filter(|entry| entry.file_type().is_ok_and(|of| of.is_symlink()) && is_file(&entry.file_name()))
        .map(|entry| entry.path());
    let mut ways: Vec<_> = [dir.to_owned()].into_iter().chain(links).flat_map(|path| way(&path)).collect();
    ways.sort_unstable();
    ways.dedup();
    ways
}

/// The paths that lead to another: its own, that of every folder it lies in, and where links on the way lead.
fn way(path: &Path) -> Vec<PathBuf> {
    let parts = |path: &Path| path.iter().rev().map(ToOwned::to_owned).collect::<Vec<OsString>>();
    let (mut way, mut at, mut rest, mut links) = (Vec::new(), PathBuf::new(), parts(path), 0);
    while let Some(part) = rest.pop() {
        if part == ".." && at.file_name().is_some() {
            at.pop();
            continue;
        }
        at.push(part);
        if at.file_name().is_some() {
            way.push(at.clone());
        }
        if let Ok(to) = fs::read_link(&at)
            && links < MAX_LINKS
        {
            links += 1;
            at.pop();
            rest.extend(parts(&to));
        }
    }
    way
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_part_of_the_way_leads_to_the_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("releases/42/plugins")).unwrap();
        symlink("releases/42", root.join("current")).unwrap();
        symlink(root.join("current/plugins"), root.join("plugins.d")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let below = |paths: Vec<PathBuf>| {
            let below = paths.iter().filter_map(|path| path.strip_prefix(&root).ok()?.to_str());
            below.filter(|path| !path.is_empty()).map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        let release = ["releases", "releases/42", "releases/42/plugins"];
        assert_eq!(below(way(&root.join("releases/42/plugins"))), release);
        assert_eq!(below(way(&root.join("plugins.d"))), [&["plugins.d", "current"][..], &release].concat());
        assert_eq!(below(way(&root.join("none/plugins"))), ["none", "none/plugins"]);
        assert!(below(way(&root.join("loop/plugins"))).len() <= MAX_LINKS + 2);
        // A plugin that is a link to what its author builds.
        fs::create_dir(root.join("built")).unwrap();
        symlink("../../../built/a.wasm", root.join("releases/42/plugins/a.wasm")).unwrap();
        symlink("../../../built/other", root.join("releases/42/plugins/other")).unwrap();
        let built = [&["built", "built/a.wasm"][..], &release, &["releases/42/plugins/a.wasm"]].concat();
        assert_eq!(below(ways(&root.join("releases/42/plugins"))), built);
    }
}
