//! One look at the folder: what is there, what has changed, what is still being written, and what is to be tried therefore.

use super::job::{Job, Outcome, Target, Tried};
use super::news::News;
use super::stamp::{ENDINGS, SETTLED, Stamp, Stamps, stamps};
use super::{Event, Folder, SLOW_POLL};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use std::{fs, io, thread};
use tokio::time::Instant;
use tracing::warn;

/// A file that its writer has not closed is taken to be whole after so long without a change.
const ABANDONED: Duration = Duration::from_secs(2);

/// The longest wait before something is tried again that failed and might not fail any more.
const SLOWEST_RETRY: Duration = Duration::from_secs(8 * 60);

/// Files of one folder that are looked at. Without it a folder that somebody else writes to could keep the thread busy.
const MAX_PLUGINS: usize = 1000;

/// Plugins of one folder that are loaded at once: enough that a slow one does not hold up the others, and no more than a
/// compiler's memory allows.
const LOADERS: usize = 4;

/// What was seen, and what was made of it.
#[derive(Debug)]
pub(super) struct Scan {
    files: BTreeMap<String, Seen>,
    /// Where the threads that load say what came of it.
    events: SyncSender<Event>,
    loading: usize,
    /// The folder has been looked at: what is new now is new there.
    begun: bool,
    /// Other plugins may be there than were listed last.
    changed: bool,
    missing_told: bool,
    names_told: BTreeSet<String>,
}

/// The files of one plugin.
#[derive(Debug, Default)]
struct Seen {
    parts: [Part; 3],
    /// The stamps of what was tried last.
    tried: Option<Stamps>,
    /// When to read once more what was tried so soon after it was written that it could have changed without a trace.
    again: Option<Instant>,
    /// The hash of what was tried last, and those that did not take it.
    content: Option<[u8; 32]>,
    refused: Vec<Target>,
    /// When to try once more what failed and might not fail then, and for how long that is waited for.
    retry: Option<(Instant, Duration)>,
    /// A thread is at it.
    loading: bool,
    /// Since when it was missing in the folder.
    gone: Option<Instant>,
}

#[derive(Debug, Default)]
struct Part {
    stamp: Option<Stamp>,
    /// When it was first seen to be as it is; what was never there has not changed.
    since: Option<Instant>,
    /// It came as it is: moved here, or before the folder was watched.
    whole: bool,
}

impl Scan {
    pub(super) fn new(events: SyncSender<Event>) -> Self {
        Self {
            files: BTreeMap::new(),
            events,
            loading: 0,
            begun: false,
            changed: false,
            missing_told: false,
            names_told: BTreeSet::new(),
        }
    }

    /// Whether a file is being written, or may have been written once more since it was read.
    pub(super) fn is_pending(&self) -> bool {
        self.files.values().any(Seen::is_pending)
    }

    /// The plugins that were not taken into use yet and may be soon.
    pub(super) fn unfinished(&self) -> Vec<&str> {
        let unfinished = self.files.iter().filter(|(_, seen)| seen.loading || seen.is_pending());
        unfinished.map(|(name, _)| name.as_str()).collect()
    }

    /// Looks, has what is new and whole tried, and takes out of use what is gone. What cannot be read now is looked at again.
    pub(super) fn run(&mut self, folder: &Folder, news: &News) {
        let dir = &folder.settings.dir;
        match self.list(folder) {
            Ok(found) => {
                self.missing_told = false;
                self.remove_gone(folder, &found);
                for (name, stamps) in found {
                    self.look_at(folder, name, stamps, news);
                }
                self.begun = true;
            }
            Err(error) => {
                // Whoever exchanges the folder should not stop the traffic: its plugins stay until it is back, and then
                // for as long as it may take to fill it.
                self.files.values_mut().for_each(|seen| seen.gone = None);
                if !std::mem::replace(&mut self.missing_told, true) {
                    warn!(dir = %dir.display(), %error, "the plugin folder cannot be read: waiting for it");
                }
            }
        }
        if std::mem::take(&mut self.changed) {
            folder.list_deciding();
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
            let stamps = stamps(dir, name);
            if stamps[0].is_some() {
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
    fn remove_gone(&mut self, folder: &Folder, found: &BTreeMap<String, Stamps>) {
        let changed = &mut self.changed;
        self.files.retain(|name, seen| {
            if found.contains_key(name) {
                seen.gone = None;
                return true;
            }
            let gone = *seen.gone.get_or_insert_with(Instant::now);
            if seen.loading || gone.elapsed() < SETTLED {
                return true;
            }
            folder.named(name).iter().for_each(|(_, plugin)| plugin.remove());
            *changed = true;
            false
        });
    }

    fn look_at(&mut self, folder: &Folder, name: String, stamps: Stamps, news: &News) {
        let now = Instant::now();
        let seen = self.files.entry(name.clone()).or_default();
        for ((part, stamp), ending) in seen.parts.iter_mut().zip(stamps).zip(ENDINGS) {
            if part.stamp != stamp {
                let old = !self.begun && !stamp.is_some_and(|stamp| stamp.is_fresh());
                *part = Part { stamp, since: Some(now), whole: old };
            }
            part.whole |= news.was_moved(&name, ending);
        }
        if self.loading < LOADERS && seen.is_due(now) && seen.is_whole(&name, news) {
            self.loading += 1;
            let job = seen.job(folder, &name, now);
            let events = self.events.clone();
            thread::spawn(move || {
                // A panic in a compiler is no reason to wait for that plugin for ever.
                let outcome = catch_unwind(AssertUnwindSafe(|| job.run()));
                let failed = |_| Outcome::Tried(Tried { may_pass: true, ..Tried::default() });
                // Nobody listens any more where the folder was dropped.
                drop(events.send(Event::Loaded(name, outcome.unwrap_or_else(failed))));
            });
        }
    }

    /// Takes in what came of a try.
    pub(super) fn loaded(&mut self, name: &str, outcome: Outcome) {
        self.loading -= 1;
        // Nothing is forgotten while it is loaded.
        let Some(seen) = self.files.get_mut(name) else { return };
        seen.loading = false;
        match outcome {
            Outcome::Unsettled => seen.tried = None,
            Outcome::Same => {}
            Outcome::Tried(tried) => {
                let wait = seen.retry.map_or(SLOW_POLL, |(_, wait)| (wait * 2).min(SLOWEST_RETRY));
                seen.retry = tried.may_pass.then(|| (Instant::now() + wait, wait));
                (seen.content, seen.refused) = (tried.content, tried.refused);
                self.changed = true;
            }
        }
    }
}

impl Seen {
    fn stamps(&self) -> Stamps {
        [0, 1, 2].map(|part: usize| self.parts[part].stamp)
    }

    /// Whether to look at it again soon.
    fn is_pending(&self) -> bool {
        let unread = self.tried != Some(self.stamps());
        !self.loading && (unread || self.again.is_some() || self.gone.is_some())
    }

    /// Whether there is a reason to read the files.
    fn is_due(&self, now: Instant) -> bool {
        let again = self.again.is_some_and(|at| at <= now);
        !self.loading && (self.tried != Some(self.stamps()) || again || self.is_retry(now))
    }

    fn is_retry(&self, now: Instant) -> bool {
        self.retry.is_some_and(|(at, _)| at <= now)
    }

    /// Whether nobody is writing any of the files: together they are one plugin, so each waits for the others.
    fn is_whole(&self, name: &str, news: &News) -> bool {
        self.parts.iter().zip(ENDINGS).all(|(part, ending)| {
            let still = if news.is_written(name, ending) { ABANDONED } else { SETTLED };
            part.whole || part.since.is_none_or(|since| since.elapsed() >= still)
        })
    }

    fn job(&mut self, folder: &Folder, name: &str, now: Instant) -> Job {
        let stamps = self.stamps();
        let touched = self.tried.replace(stamps) != Some(stamps);
        let retry = self.is_retry(now);
        if touched {
            self.retry = None;
        }
        // A file from the future is fresh for as long as any other.
        let fresh = self.parts.iter().any(|part| {
            part.since.is_some_and(|since| since.elapsed() < SETTLED)
                && part.stamp.is_some_and(|stamp| stamp.is_fresh())
        });
        self.again = fresh.then(|| now + SETTLED);
        self.loading = true;
        Job {
            dir: folder.settings.dir.clone(),
            name: name.to_owned(),
            stamps,
            known: self.content,
            all: folder.named(name),
            refused: if touched || retry { self.refused.clone() } else { Vec::new() },
            again: !touched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{CompiledCache, FolderSettings, Limits, Runtime};
    use std::fs::File;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::time::SystemTime;
    use tokio::time::advance;

    struct Looked {
        dir: tempfile::TempDir,
        folder: Arc<Folder>,
        scan: Scan,
        events: Receiver<Event>,
    }

    impl Looked {
        /// Looks at a folder with one plugin of this code.
        fn new(code: impl AsRef<[u8]>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let plugins = dir.path().join("plugins");
            fs::create_dir(&plugins).unwrap();
            fs::write(plugins.join("p.wasm"), code).unwrap();
            let runtime = Runtime::new(Limits::default(), CompiledCache::default()).unwrap();
            let folder = Folder::new(&runtime, FolderSettings::new(plugins));
            let (wake, events) = sync_channel(8);
            let mut looked = Self { dir, folder, scan: Scan::new(wake), events };
            looked.look();
            looked
        }

        fn plugins(&self) -> PathBuf {
            self.dir.path().join("plugins")
        }

        /// Looks once, and waits for what is tried.
        fn look(&mut self) {
            self.scan.run(&self.folder, &News::default());
            while self.scan.loading > 0 {
                if let Event::Loaded(name, outcome) = self.events.recv().unwrap() {
                    self.scan.loaded(&name, outcome);
                }
            }
        }

        async fn look_after(&mut self, time: Duration) {
            advance(time).await;
            self.look();
        }

        fn last_error(&self) -> String {
            self.folder.status()[0].last_error.clone().unwrap_or_default()
        }

        fn is_in_use(&self) -> bool {
            self.folder.status()[0].version.is_some()
        }
    }

    fn fixed() -> String {
        fs::read_to_string("tests/data/guests/fixed.wat").unwrap()
    }

    /// A time that lies ahead is no reason to read a file again and again.
    #[tokio::test(start_paused = true)]
    async fn a_file_from_the_future_is_settled_like_any_other() {
        let mut looked = Looked::new("no plugin");
        let ahead = SystemTime::now() + Duration::from_secs(1_000_000);
        let file = File::options().append(true).open(looked.plugins().join("p.wasm")).unwrap();
        file.set_modified(ahead).unwrap();
        looked.look();
        assert!(looked.scan.is_pending(), "it may not be whole yet");
        for _ in 0..2 {
            looked.look_after(SETTLED).await;
        }
        assert!(!looked.scan.is_pending());
        assert!(looked.last_error().contains("not WebAssembly"));
    }

    /// What is moved here is whole though it is new; what is written here is not, until it is closed or left alone.
    #[tokio::test(start_paused = true)]
    async fn what_is_moved_counts_at_once_and_what_is_written_when_it_is_closed() {
        use notify::event::{AccessKind, AccessMode, DataChange, EventKind, ModifyKind, RenameMode};
        let mut looked = Looked::new(wat::parse_str(fixed()).unwrap());
        looked.look_after(SETTLED).await;
        assert!(looked.is_in_use());
        let mut news = News::default();
        let tell = |news: &mut News, kind, dir: &Path| {
            news.hear(&notify::Event::new(kind).add_path(dir.join("p.wasm")), dir);
        };
        let rename = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let write = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let tries = |looked: &mut Looked, news: &mut News| {
            looked.scan.run(&looked.folder, &news.take());
            let tries = looked.scan.loading == 1;
            looked.look();
            tries
        };
        let dir = looked.plugins();
        fs::write(dir.join("p.wasm"), "moved").unwrap();
        tell(&mut news, rename, &dir);
        assert!(tries(&mut looked, &mut news));
        looked.look_after(SETTLED).await;
        fs::write(dir.join("p.wasm"), "being written").unwrap();
        tell(&mut news, write, &dir);
        assert!(!tries(&mut looked, &mut news));
        advance(SETTLED).await;
        looked.scan.run(&looked.folder, &news.take());
        assert_eq!(looked.scan.loading, 0, "its writer has only paused");
        tell(&mut news, close, &dir);
        assert!(tries(&mut looked, &mut news));
        fs::write(dir.join("p.wasm"), "never closed").unwrap();
        tell(&mut news, write, &dir);
        assert!(!tries(&mut looked, &mut news));
        advance(ABANDONED).await;
        assert!(tries(&mut looked, &mut news));
    }

    /// Whoever removes a folder removes its files first; that the plugins stay holds until the new folder was filled.
    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_removed_bit_by_bit_and_made_again_keeps_its_plugins() {
        let mut looked = Looked::new(wat::parse_str(fixed()).unwrap());
        looked.look_after(SETTLED).await;
        fs::remove_file(looked.plugins().join("p.wasm")).unwrap();
        looked.look();
        fs::remove_dir(looked.plugins()).unwrap();
        looked.look_after(10 * SETTLED).await;
        fs::create_dir(looked.plugins()).unwrap();
        looked.look();
        assert!(looked.is_in_use());
        looked.look_after(SETTLED).await;
        assert!(!looked.is_in_use(), "nobody has put it back");
    }

    /// Something that was in the way may be gone: a busy machine, too many other instances.
    #[tokio::test(start_paused = true)]
    async fn what_does_not_start_is_tried_again_less_and_less_often() {
        // It configures the third time.
        let asks = "(i32.eq (call $first_byte (local.get $config) (local.get $len)) (i32.const 0x62))";
        let counts = "(i64.lt_s (call $count (i32.const 64) (i32.const 36) (i64.const 1)) (i64.const 3))";
        let memory = r#"(memory (export "memory") 2)"#;
        let import = r#"(import "pointsman:routing/host@1.0.0" "count" (func $count (param i32 i32 i64) (result i64)))"#;
        let code = fixed().replace(asks, counts).replace(memory, &format!("{import} {memory}"));
        let mut looked = Looked::new(wat::parse_str(code).unwrap());
        let tries = |looked: &Looked| looked.folder.status()[0].counters[0].1;
        looked.look_after(SETTLED).await;
        looked.look_after(SETTLED).await;
        assert_eq!((tries(&looked), looked.last_error().as_str()), (1, "configure: bad configuration"));
        looked.look_after(SLOW_POLL).await;
        assert_eq!(tries(&looked), 2);
        looked.look_after(SLOW_POLL).await;
        assert_eq!((tries(&looked), looked.is_in_use()), (2, false));
        looked.look_after(SLOW_POLL).await;
        assert!(looked.is_in_use());
    }
}
