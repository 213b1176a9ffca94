//! The watched folder: what lies in it is in use, whatever way it got there.
//!
//! Events only say that it is time to look. What is looked at are the files themselves, so that renames, links, whole
//! folders exchanged and events that were lost all come to the same. One thread looks and loads: nothing happens twice at once.

mod scan;

use super::binding::{Binding, OnError};
use super::{Plugin, Runtime, Status};
use arc_swap::ArcSwap;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use scan::Scan;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tracing::warn;

/// The folder and how it is looked at: `plugins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderSettings {
    /// `dir`.
    pub dir: PathBuf,
    /// `poll`: how often to look without being told, where the system does not tell of changes.
    pub poll: Duration,
    /// Only the plugin of this name.
    pub only: Option<String>,
}

impl FolderSettings {
    /// The defaults for a folder.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, poll: Duration::from_secs(2), only: None }
    }
}

/// How often to look without being told where the system does tell: it may not, for what others change on a shared disk.
const SLOW_POLL: Duration = Duration::from_secs(30);

/// How often to look at files that are being written.
const PENDING_POLL: Duration = Duration::from_millis(50);

/// Events that may wait; more say nothing new.
const EVENTS: usize = 64;

/// Plugins by name, and by the configuration that they are bound with if it is not that of their file.
type Named = BTreeMap<(String, Option<String>), Arc<Plugin>>;

/// The plugins of a folder.
#[derive(Debug)]
pub struct Folder {
    runtime: Runtime,
    settings: FolderSettings,
    /// Every plugin that lies in the folder or is bound by name, in the order of the names; apart from it those that are
    /// bound with a configuration of their own.
    plugins: Mutex<Named>,
    /// Those in the folder that decide ingress, in the order of the file names.
    ingress: ArcSwap<Arc<[Binding]>>,
    /// Wakes the thread that looks, so that it ends with the folder and not with its next look.
    wake: OnceLock<SyncSender<()>>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(wake) = self.wake.get() {
            let _ = wake.try_send(());
        }
    }
}

impl Folder {
    /// A folder that has not been looked at yet.
    pub fn new(runtime: &Runtime, settings: FolderSettings) -> Arc<Self> {
        let (runtime, ingress) = (runtime.clone(), ArcSwap::from_pointee(Arc::from([])));
        Arc::new(Self { runtime, settings, plugins: Mutex::default(), ingress, wake: OnceLock::new() })
    }

    /// Whether `NAME.wasm` is taken for a plugin, going by its name.
    pub fn takes(name: &str) -> bool {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits)
    }

    /// Loads what lies in the folder, then watches it until the value is dropped. A file that cannot be loaded is logged
    /// and shown in its status; a folder that is not there yet is waited for.
    pub fn watch(self: &Arc<Self>) {
        let (wake, events) = sync_channel(EVENTS);
        if self.wake.set(wake.clone()).is_err() {
            // It is watched already.
            return;
        }
        let mut watch = Watch {
            wake,
            watcher: None,
            watched: Vec::new(),
            exchanged: Arc::default(),
            failure_told: false,
        };
        let mut scan = Scan::default();
        let told = watch.renew(&self.settings.dir);
        scan.run(self);
        let weak = Arc::downgrade(self);
        std::thread::spawn(move || look(&weak, scan, watch, told, &events));
    }

    /// The plugins that an ingress without a binding asks, in the order of their file names.
    pub fn ingress(&self) -> Arc<[Binding]> {
        Arc::clone(&self.ingress.load())
    }

    /// The plugin of that name, with a configuration in place of `NAME.yaml` if one is given. It has no file before the
    /// folder is watched, and perhaps none then.
    pub fn plugin(&self, name: &str, config: Option<&str>) -> Arc<Plugin> {
        let new = || Plugin::new(&self.runtime, name);
        let key = (name.to_owned(), config.map(str::to_owned));
        Arc::clone(self.plugins().entry(key).or_insert_with(new))
    }

    /// All plugins of that name, the one without a configuration of its own among them.
    fn named(&self, name: &str) -> Vec<(Option<String>, Arc<Plugin>)> {
        self.plugin(name, None);
        let plugins = self.plugins();
        let named = plugins.iter().filter(|((of, _), _)| of == name);
        named.map(|((_, config), plugin)| (config.clone(), Arc::clone(plugin))).collect()
    }

    /// What there is to say about each plugin.
    pub fn status(&self) -> Vec<Status> {
        let plugins = self.plugins().clone();
        let status = plugins.iter().map(|((_, config), plugin)| (config, plugin.status()));
        status.map(|(config, status)| Status { own_config: config.is_some(), ..status }).collect()
    }

    fn plugins(&self) -> MutexGuard<'_, Named> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a change: which plugins an ingress asks.
    fn list_ingress(&self) {
        let plugins = self.plugins();
        let own = plugins.iter().filter(|((_, config), _)| config.is_none());
        let mut deciding: Vec<_> = own.map(|(_, plugin)| plugin).filter(|p| p.roles().ingress).collect();
        // With its ending a name may have another place: `a-b.wasm` lies before `a.wasm`.
        deciding.sort_by_cached_key(|plugin| format!("{}.wasm", plugin.name()));
        let bindings: Arc<[_]> =
            deciding.into_iter().map(|plugin| Binding::new(Arc::clone(plugin), OnError::Next)).collect();
        self.ingress.store(Arc::new(bindings));
    }
}

/// Looks when something happens, and now and then. `told`: the system tells of changes.
fn look(folder: &Weak<Folder>, mut scan: Scan, mut watch: Watch, mut told: bool, events: &Receiver<()>) {
    loop {
        let Some(poll) = folder.upgrade().map(|folder| folder.settings.poll) else { return };
        let patience = match (scan.is_pending(), told) {
            (true, _) => PENDING_POLL,
            (false, true) => SLOW_POLL,
            (false, false) => poll,
        };
        match events.recv_timeout(patience) {
            // Whatever else has happened is seen with it.
            Ok(()) => while events.try_recv().is_ok() {},
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(folder) = folder.upgrade() else { return };
        // What happens after it is told, so that nothing happens unseen between the look and the wait.
        told = watch.renew(&folder.settings.dir);
        scan.run(&folder);
    }
}

/// Being told of changes: in the folder, in the one it lies in (it may be exchanged), and where a link leads.
struct Watch {
    wake: SyncSender<()>,
    watcher: Option<RecommendedWatcher>,
    /// Paths, and what they were when they were watched.
    watched: Vec<(PathBuf, Option<scan::Inode>)>,
    /// The folder itself came or went since it was watched. Its inode need not tell: a new folder may get that of the old one.
    exchanged: Arc<AtomicBool>,
    failure_told: bool,
}

impl Watch {
    /// Watches anew if any of the paths is another than it was; whether the system tells of changes.
    fn renew(&mut self, dir: &Path) -> bool {
        // A name without a folder is in the current one.
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new("."));
        let now: Vec<_> = [dir, parent].map(|path| (path.to_owned(), scan::inode(path))).into();
        let exchanged = self.exchanged.swap(false, Ordering::Relaxed);
        if exchanged || now != self.watched || self.watcher.is_none() {
            self.watcher = None;
            match self.start(dir, parent) {
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

    fn start(&self, dir: &Path, parent: &Path) -> notify::Result<RecommendedWatcher> {
        let (wake, name) = (self.wake.clone(), dir.file_name().map(ToOwned::to_owned));
        let exchanged = Arc::clone(&self.exchanged);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event {
                if says_nothing(&event, name.as_deref()) {
                    return;
                }
                if event.paths.iter().any(|path| path.file_name() == name.as_deref()) {
                    exchanged.store(true, Ordering::Relaxed);
                }
            }
            // A full channel will wake the thread as well.
            let _ = wake.try_send(());
        })?;
        let around = watcher.watch(parent, RecursiveMode::NonRecursive);
        match watcher.watch(dir, RecursiveMode::NonRecursive) {
            Ok(()) => Ok(watcher),
            // The folder is missing; its parent tells when it comes.
            Err(_) if !dir.exists() => around.map(|()| watcher),
            Err(error) => Err(error),
        }
    }
}

/// Whether an event is about reading only, or about something else beside the folder of that name: a log file, perhaps, that is
/// written to all the time.
fn says_nothing(event: &notify::Event, folder: Option<&OsStr>) -> bool {
    if matches!(event.kind, EventKind::Access(_)) && !ends_writing(event) {
        return true;
    }
    let concerns =
        |path: &PathBuf| path.file_name() == folder || path.parent().and_then(Path::file_name) == folder;
    folder.is_some() && !event.paths.is_empty() && !event.paths.iter().any(concerns)
}

fn ends_writing(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode};
    event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}
