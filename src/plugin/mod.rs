//! Routing decided by WebAssembly plugins: a named plugin, whose version in use can change under those who hold it.
//!
//! `load` makes a file callable, `pool` keeps instances of it warm, `ask` and `admit` ask and check the answers, `binding` gives
//! the answers to the routes of `route`, `folder` watches for files. What guests can call is in `bind` and `wasi`.

mod adapter;
mod admit;
mod ask;
mod bind;
mod binding;
mod cache;
mod cases;
mod compile;
mod engine;
mod folder;
mod idle;
mod load;
mod pool;
mod probation;
mod stats;
mod store;
mod wasi;
mod workbench;
mod wrap;

pub use binding::{Allow, Binding, BoundAdmission, BoundForwarder, Chain, OnError};
pub use cases::{Again, Answer, Asked, Candidate, Case, Cases, Outcome};
pub use compile::CompiledCache;
pub use engine::Limits;
pub use folder::{FirstLook, Folder, FolderSettings};
pub use load::{LoadError, Roles, Version};
pub use pool::CallError;
pub use stats::{BUCKETS, Counts};
pub use workbench::{Asking, Inspection, Pace, Start, Workbench};

use arc_swap::ArcSwapOption;
use ask::Generation;
use bind::Shared;
use engine::Host;
use load::Compiled;
use pool::Pool;
use serde::Serialize;
use stats::Stats;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use store::Store;
use tokio::time::Instant;
use tracing::{info, warn};

/// What all plugins share: compiler, limits, compiled code.
#[derive(Debug, Clone)]
pub struct Runtime {
    host: Arc<Host>,
    limits: Limits,
    cache: CompiledCache,
}

impl Runtime {
    /// Sets the engine up.
    ///
    /// # Errors
    ///
    /// When the system does not give it the addresses that the instances may need.
    pub fn new(limits: Limits, cache: CompiledCache) -> anyhow::Result<Self> {
        let host = Host::new(limits.memory).map_err(anyhow::Error::from)?;
        Ok(Self { host, limits, cache })
    }

    /// A name with an empty store: what the versions of one plugin share.
    fn shared(&self, name: &str) -> Arc<Shared> {
        let store = Store::new(self.limits.store_keys, self.limits.store_size);
        Arc::new(Shared::new(name, store))
    }

    /// Starts a version: its first instance is made and configured.
    fn generation(
        &self,
        compiled: Compiled,
        config: &str,
        shared: Arc<Shared>,
        stats: Arc<Stats>,
    ) -> Result<Arc<Generation>, CallError> {
        let pool = Pool::new(&self.host, &self.limits, compiled, config.into(), shared, stats)?;
        Ok(Generation::new(pool, self.limits.cached_decisions))
    }
}

/// Why a file was not taken into use.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InstallError {
    /// It is no plugin.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// It does not start with this configuration.
    #[error("{0}")]
    Start(#[from] CallError),
    /// Its decision table is none.
    #[error("{0}")]
    Table(String),
    /// Its answers are not those of its decision table.
    #[error("{failed} of {cases} cases of its decision table fail; the first: {first}")]
    Cases {
        /// How many there are.
        cases: usize,
        /// How many do not hold.
        failed: usize,
        /// What is wrong with the first of them.
        first: String,
    },
}

/// What a plugin is made from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Component or core module.
    pub code: Vec<u8>,
    /// The text given to `configure`.
    pub config: String,
    /// The decision table, as YAML, that must hold before the plugin is taken into use.
    pub cases: Option<String>,
}

/// A plugin by its name. What it remembers, counts and is bound to stays when its version changes.
#[derive(Debug)]
pub struct Plugin {
    runtime: Runtime,
    shared: Arc<Shared>,
    stats: Arc<Stats>,
    current: ArcSwapOption<Generation>,
    /// Kept for bindings with `onError: last-good` only: its instances need memory.
    previous: ArcSwapOption<Generation>,
    keeps_previous: AtomicBool,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    last_swap: Option<SystemTime>,
    last_error: Option<String>,
    /// Why the last file was not taken.
    refusal: Option<String>,
    /// When a failure was logged last.
    warned: Option<Instant>,
}

impl History {
    /// A file was taken into use.
    fn taken(&mut self) {
        self.last_swap = Some(SystemTime::now());
        self.last_error = None;
        self.refusal = None;
    }
}

/// What there is to say about a plugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Its name: the file's, without `.wasm`.
    pub name: String,
    /// The hash of the file in use; absent while there is none.
    pub version: Option<String>,
    /// The hash of the configuration that it is bound with, if that is not the one beside its file.
    pub config: Option<String>,
    /// `ingress`, `forwarder`, `admission`: one or more.
    pub kinds: Vec<&'static str>,
    /// Seconds since 1970 of the last change of version or configuration.
    pub last_swap: Option<u64>,
    /// Why the last file was not taken, or the last call failed.
    pub last_error: Option<String>,
    /// What it did.
    #[serde(flatten)]
    pub counts: Counts,
    /// Its own counters.
    pub counters: Vec<(String, i64)>,
}

/// At most one line a second tells of failing calls of one plugin.
const WARN_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

impl Plugin {
    /// A plugin without a file.
    pub fn new(runtime: &Runtime, name: &str) -> Arc<Self> {
        Arc::new(Self {
            runtime: runtime.clone(),
            shared: runtime.shared(name),
            stats: Arc::default(),
            current: ArcSwapOption::empty(),
            previous: ArcSwapOption::empty(),
            keeps_previous: AtomicBool::new(false),
            history: Mutex::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What the version in use decides.
    pub fn roles(&self) -> Roles {
        self.current.load().as_ref().map(|generation| generation.pool.compiled.roles).unwrap_or_default()
    }

    /// Takes a file into use: checked, compiled, instantiated, configured, tested, and only then put in the place of the
    /// one before. Takes as long as compiling does: not for threads that serve connections.
    ///
    /// # Errors
    ///
    /// When any step fails: whatever was in use stays.
    pub fn install(&self, source: &Source) -> Result<Version, InstallError> {
        self.take(source).inspect_err(|error| self.not_taken(error, false))
    }

    /// As `install`, and tells nobody of a failure.
    fn take(&self, source: &Source) -> Result<Version, InstallError> {
        let started = Instant::now();
        let generation = self.prepare(source)?;
        let (version, roles) = (generation.pool.compiled.version, generation.pool.compiled.roles);
        // Two configurations of one file look alike but for this.
        let config = (!source.config.is_empty()).then(|| Version::of(source.config.as_bytes()).to_string());
        let pool = Arc::clone(&generation.pool);
        self.history().taken();
        let before = self.current.swap(Some(generation));
        if let Some(before) = before {
            self.stats.swapped();
            // One that never answered is no good to fall back to.
            if self.keeps_previous.load(Ordering::Relaxed) && before.pool.has_answered() {
                self.previous.store(Some(before));
            }
        }
        info!(plugin = self.name(), %version, config, ?roles, elapsed = ?started.elapsed(), "plugin in use");
        // The first instance serves while the others are made.
        pool.fill();
        Ok(version)
    }

    /// Tells why a file was not taken into use; `again`: unless that is what was told last.
    fn not_taken(&self, error: &dyn std::fmt::Display, again: bool) {
        let kept = self.current.load().as_ref().map(|g| g.pool.compiled.version.to_string());
        let error = error.to_string();
        let mut history = self.history();
        if !again || history.refusal.as_ref() != Some(&error) {
            warn!(plugin = self.name(), %error, kept, "plugin not taken into use");
        }
        history.refusal = Some(error.clone());
        history.last_error = Some(error);
    }

    fn prepare(&self, source: &Source) -> Result<Arc<Generation>, InstallError> {
        let runtime = &self.runtime;
        let compiled = Compiled::load(&runtime.host, &runtime.cache, &source.code)?;
        if let Some(cases) = &source.cases {
            let cases = Cases::parse(cases).map_err(InstallError::Table)?;
            // With a store and counts of its own: a test leaves no traces.
            let (shared, stats) = (runtime.shared(self.name()), Arc::default());
            let config = cases.config.as_deref().unwrap_or(&source.config);
            cases.check(&*runtime.generation(compiled.clone(), config, shared, stats)?)?;
        }
        let (shared, stats) = (Arc::clone(&self.shared), Arc::clone(&self.stats));
        Ok(runtime.generation(compiled, &source.config, shared, stats)?)
    }

    /// Takes the plugin out of use.
    pub fn remove(&self) {
        if self.current.swap(None).is_some() {
            self.previous.store(None);
            self.history().last_swap = Some(SystemTime::now());
            info!(plugin = self.name(), "plugin removed");
        }
    }

    /// What there is to say.
    pub fn status(&self) -> Status {
        let current = self.current.load();
        let history = self.history();
        let since_1970 = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok().map(|d| d.as_secs());
        Status {
            name: self.name().to_owned(),
            config: None,
            version: current.as_ref().map(|generation| generation.pool.compiled.version.to_string()),
            kinds: self.roles().kinds(),
            last_swap: history.last_swap.and_then(since_1970),
            last_error: history.last_error.clone(),
            counts: self.stats.snapshot(),
            counters: self.shared.store.counters(),
        }
    }

    fn keep_previous(&self) {
        self.keeps_previous.store(true, Ordering::Relaxed);
    }

    /// Counts a decision that failed, and tells of it now and then.
    fn failed(&self, error: &CallError) {
        self.stats.failed();
        let mut history = self.history();
        // Without a version what matters is why its file was not taken.
        if self.current.load().is_some() {
            history.last_error = Some(error.to_string());
        }
        if history.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            history.warned = Some(Instant::now());
            warn!(plugin = self.name(), %error, failures = self.stats.snapshot().errors, "plugin failed");
        }
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
