//! The watched folder: what lies in it is in use, whatever way it got there.
//!
//! Events only say that it is time to look. What is looked at are the files themselves, so that renames, links, whole
//! folders exchanged and events that were lost all come to the same. One thread looks; what it finds is loaded on others, each
//! plugin on one at a time.

mod job;
mod news;
mod scan;
mod stamp;
mod watch;

use super::binding::{Binding, OnError};
use super::{Plugin, Roles, Runtime, Status, Version};
use arc_swap::{ArcSwap, Guard};
use job::Outcome;
use scan::Scan;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;
use watch::Watch;

/// The folder and how it is looked at: `plugins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderSettings {
    /// `dir`.
    pub dir: PathBuf,
    /// `poll`: how often to look without being told, where the system does not tell of changes.
    pub poll: Duration,
    /// Only the plugin of this name.
    pub only: Option<String>,
    /// Ask the system to tell of changes.
    pub told: bool,
}

impl FolderSettings {
    /// The defaults for a folder.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, poll: Duration::from_secs(2), only: None, told: true }
    }
}

/// How often to look without being told where the system does tell: it may not, for what others change on a shared disk.
const SLOW_POLL: Duration = Duration::from_secs(30);

/// How often to look at files that are being written.
const PENDING_POLL: Duration = Duration::from_millis(50);

/// The least time that the first look waits for its plugins: compiling takes its time where nothing is configured.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// Events that may wait; more say nothing new.
const EVENTS: usize = 64;

/// What wakes the thread that looks.
#[derive(Debug)]
enum Event {
    /// Something may have changed.
    Look,
    /// A plugin was tried.
    Loaded(String, Outcome),
}

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
    /// And those that decide admission.
    admission: ArcSwap<Arc<[Binding]>>,
    /// Wakes the thread that looks, so that it ends with the folder and not with its next look.
    wake: OnceLock<SyncSender<Event>>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(wake) = self.wake.get() {
            let _ = wake.try_send(Event::Look);
        }
    }
}

/// The loading of what lies in a folder when it is first looked at.
#[derive(Debug)]
#[must_use]
pub struct FirstLook(Receiver<Infallible>);

impl FirstLook {
    /// Waits until every plugin was taken into use or refused, for `configureDeadline` or 10 s at most, whichever is longer.
    pub fn wait(self) {
        // Nothing is sent: the other end is dropped.
        let _ = self.0.recv();
    }
}

impl Folder {
    /// A folder that has not been looked at yet.
    pub fn new(runtime: &Runtime, mut settings: FolderSettings) -> Arc<Self> {
        // As the system names files when it tells of them; links stay what they are. It fails for an empty path only.
        if let Ok(dir) = std::path::absolute(&settings.dir) {
            settings.dir = dir;
        }
        let none = || ArcSwap::from_pointee(Arc::from([]));
        let (runtime, plugins) = (runtime.clone(), Mutex::default());
        Arc::new(Self {
            runtime,
            settings,
            plugins,
            ingress: none(),
            admission: none(),
            wake: OnceLock::new(),
        })
    }

    /// Whether `NAME.wasm` is taken for a plugin, going by its name.
    pub fn takes(name: &str) -> bool {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits)
    }

    /// Begins to load what lies in the folder and to watch it, until the value is dropped. A file that cannot be loaded is
    /// logged and shown in its status; a folder that is not there yet is waited for.
    pub fn watch(self: &Arc<Self>) -> FirstLook {
        self.watch_for(self.runtime.limits.configure_deadline.max(FIRST_WAIT))
    }

    /// `patience`: for how long the first look may be waited for.
    fn watch_for(self: &Arc<Self>, patience: Duration) -> FirstLook {
        let (first, looked) = sync_channel(0);
        let (wake, events) = sync_channel(EVENTS);
        if self.wake.set(wake.clone()).is_ok() {
            let first = First { until: Instant::now() + patience, _waiting: first };
            let (weak, watch, scan) = (Arc::downgrade(self), Watch::new(wake.clone()), Scan::new(wake));
            std::thread::spawn(move || look(&weak, scan, watch, &events, first));
        }
        FirstLook(looked)
    }

    /// The plugins that an ingress without a binding asks, in the order of their file names.
    /// Every request asks for them: who only looks at them need not count himself among their holders.
    pub fn ingress(&self) -> Guard<Arc<Arc<[Binding]>>> {
        self.ingress.load()
    }

    /// The plugins that a tunnel server without a binding asks who may open a tunnel, in the same order.
    pub fn admission(&self) -> Arc<[Binding]> {
        Arc::clone(&self.admission.load())
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
        let hash = |config: &String| Version::of(config.as_bytes()).to_string();
        status.map(|(config, status)| Status { config: config.as_ref().map(hash), ..status }).collect()
    }

    fn plugins(&self) -> MutexGuard<'_, Named> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a change: which plugins an ingress and a tunnel server ask.
    fn list_deciding(&self) {
        let plugins = self.plugins();
        let own = plugins.iter().filter(|((_, config), _)| config.is_none());
        let mut own: Vec<_> = own.map(|(_, plugin)| plugin).collect();
        // With its ending a name may have another place: `a-b.wasm` lies before `a.wasm`.
        own.sort_by_cached_key(|plugin| format!("{}.wasm", plugin.name()));
        let list = |decides: fn(Roles) -> bool, on_error| -> Arc<[_]> {
            let deciding = own.iter().filter(|plugin| decides(plugin.roles()));
            deciding.map(|plugin| Binding::new(Arc::clone(plugin), on_error)).collect()
        };
        self.ingress.store(Arc::new(list(|roles| roles.ingress, OnError::Next)));
        // A door that does not work stays shut.
        self.admission.store(Arc::new(list(|roles| roles.admission, OnError::Refuse)));
    }
}

/// Whoever waits for the first look, and until when; dropping it ends the wait.
struct First {
    until: Instant,
    _waiting: SyncSender<Infallible>,
}

/// Looks when something happens, and now and then.
fn look(folder: &Weak<Folder>, mut scan: Scan, mut watch: Watch, events: &Receiver<Event>, first: First) {
    let mut first = Some(first);
    while let Some(now) = folder.upgrade() {
        // What happens after it is told, so that nothing happens unseen between the look and the wait.
        let told = watch.renew(&now.settings);
        let news = watch.news().take();
        scan.run(&now, &news);
        first = first.filter(|first| is_awaited(first, &scan));
        let patience = match (scan.is_pending() || first.is_some(), told) {
            (true, _) => PENDING_POLL,
            (false, true) => SLOW_POLL,
            (false, false) => now.settings.poll,
        };
        drop(now);
        // Whatever else has happened is seen with it.
        let woken = events.recv_timeout(patience).ok();
        for event in woken.into_iter().chain(events.try_iter()) {
            if let Event::Loaded(name, outcome) = event {
                scan.loaded(&name, outcome);
            }
        }
    }
}

fn is_awaited(first: &First, scan: &Scan) -> bool {
    let unfinished = scan.unfinished();
    let late = Instant::now() >= first.until;
    if late && !unfinished.is_empty() {
        warn!(
            plugins = unfinished.join(", "),
            "not waited for any longer: these plugins are not asked until they are loaded"
        );
    }
    !late && !unfinished.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{CompiledCache, Limits};

    /// A start does not depend on the worst of the plugins.
    #[test]
    fn the_first_look_is_not_waited_for_longer_than_that() {
        let dir = tempfile::tempdir().unwrap();
        let code = wat::parse_file("tests/data/guests/bad.wat").unwrap();
        std::fs::write(dir.path().join("p.wasm"), code).unwrap();
        // It loops for ever.
        std::fs::write(dir.path().join("p.yaml"), "l").unwrap();
        let limits = Limits { configure_deadline: Duration::from_secs(5), ..Limits::default() };
        let runtime = Runtime::new(limits, CompiledCache::default()).unwrap();
        let folder = Folder::new(&runtime, FolderSettings::new(dir.path().to_owned()));
        let began = Instant::now();
        folder.watch_for(Duration::from_millis(500)).wait();
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(500) && waited < Duration::from_secs(5), "{waited:?}");
        assert_eq!(folder.status()[0].last_error, None, "it is still at it");
    }
}
