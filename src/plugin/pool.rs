//! Warm instances of one version of a plugin: taken for a call, given back after it, replaced when they are worn or broken.
//!
//! A call runs on the thread that asks while the plugin behaves. One that has overrun or trapped lately is asked on threads
//! of its own, so that it cannot hold those that serve connections for more than its deadline.

use super::bind::{Asked, Shared, State, forwarder, ingress, lifecycle};
use super::engine::{Host, Limits};
use super::load::Compiled;
use super::stats::Stats;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wasmtime::{Store, Trap};

/// Bytes that one call may hand over to the host: an answer is a few hundred.
const MAX_ANSWER: usize = 1 << 20;

/// After a trap or an overrun so many calls are made on threads of their own before the plugin is trusted again.
const PROBATION: u32 = 100;

/// Threads that one plugin on probation may hold.
const PROBATION_THREADS: usize = 2;

/// Why a plugin gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// It returned an error.
    #[error("{0}")]
    Returned(String),
    /// It trapped: the instance is thrown away.
    #[error("trap: {0}")]
    Trapped(String),
    /// It overran its deadline: the instance is thrown away.
    #[error("no answer within {0:?} (plugins.limits.deadline)")]
    Overrun(Duration),
    /// Its answer is none: no UUID, no such node, an address that is not allowed.
    #[error("{0}")]
    BadAnswer(String),
    /// Too many decisions wait for it.
    #[error("{0} decisions wait for this plugin already (plugins.limits.queue)")]
    QueueFull(usize),
}

/// One version of a plugin, ready to be called.
#[derive(Debug)]
pub(super) struct Pool {
    host: Arc<Host>,
    limits: Limits,
    pub(super) compiled: Compiled,
    pub(super) config: Arc<str>,
    pub(super) shared: Arc<Shared>,
    pub(super) stats: Arc<Stats>,
    idle: Mutex<Vec<Box<Instance>>>,
    /// Calls still to be made on threads of their own.
    probation: AtomicU32,
    waiting: AtomicUsize,
    threads: Semaphore,
}

/// An instance that has been configured.
pub(super) struct Instance {
    store: Store<State>,
    exports: Exports,
    calls: u64,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool with its first instance, which shows that the plugin takes its configuration.
    pub(super) fn new(
        host: &Arc<Host>,
        limits: &Limits,
        compiled: Compiled,
        config: Arc<str>,
        shared: Arc<Shared>,
        stats: Arc<Stats>,
    ) -> Result<Self, CallError> {
        let pool = Self {
            host: Arc::clone(host),
            limits: limits.clone(),
            compiled,
            config,
            shared,
            stats,
            idle: Mutex::default(),
            probation: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            threads: Semaphore::new(PROBATION_THREADS),
        };
        let first = pool.instance()?;
        pool.give_back(first);
        Ok(pool)
    }

    /// Makes instances until there are as many as may be warm.
    pub(super) fn fill(&self) {
        while self.idle().len() < self.limits.instances {
            match self.instance() {
                Ok(instance) => self.give_back(instance),
                Err(error) => {
                    return tracing::warn!(plugin = &*self.shared.name, %error, "cannot make another instance");
                }
            }
        }
    }

    /// An instance to call on this thread; `None` where one would have to be made, or the plugin is on probation.
    pub(super) fn ready(&self) -> Option<Box<Instance>> {
        if self.probation.load(Ordering::Relaxed) > 0 {
            return None;
        }
        self.idle().pop()
    }

    /// Calls on this thread. The outer error of `call` is a trap, the inner one the plugin's own.
    pub(super) fn call<T>(
        &self,
        mut instance: Box<Instance>,
        asked: Asked,
        call: impl FnOnce(&Exports, &mut Store<State>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, CallError> {
        let Instance { store, exports, calls } = &mut *instance;
        store.data_mut().begin(asked);
        store.set_epoch_deadline(self.host.ticks(self.limits.deadline));
        store.set_hostcall_fuel(MAX_ANSWER);
        let started = Instant::now();
        let answer = call(exports, store);
        let elapsed = started.elapsed();
        store.data_mut().end();
        *calls += 1;
        self.stats.called(elapsed);
        match answer {
            Ok(answer) => {
                self.behaved();
                self.give_back(instance);
                answer.map_err(CallError::Returned)
            }
            Err(error) => {
                self.probation.store(PROBATION, Ordering::Relaxed);
                Err(self.broken(&error, &instance))
            }
        }
    }

    /// Calls on a thread of its own, making an instance if there is none. At most `plugins.limits.queue` may wait for that.
    pub(super) async fn call_aside<T: Send + 'static>(
        self: Arc<Self>,
        asked: Asked,
        call: impl FnOnce(&Exports, &mut Store<State>) -> wasmtime::Result<Result<T, String>> + Send + 'static,
    ) -> Result<T, CallError> {
        let _place = self.place()?;
        // The semaphore is never closed.
        let _thread = self.threads.acquire().await;
        let pool = Arc::clone(&self);
        let called = tokio::task::spawn_blocking(move || {
            let idle = pool.idle().pop();
            let instance = idle.map_or_else(|| pool.instance(), Ok)?;
            pool.call(instance, asked, call)
        });
        called.await.unwrap_or_else(|error| Err(CallError::Trapped(error.to_string())))
    }

    /// Calls apart from traffic, on this thread and with an instance that is made if there is none, and keeps what the
    /// plugin says.
    pub(super) fn try_out<T>(
        &self,
        asked: Asked,
        call: impl FnOnce(&Exports, &mut Store<State>) -> wasmtime::Result<Result<T, String>>,
    ) -> (Result<T, CallError>, Trial) {
        let idle = self.idle().pop();
        let mut instance = match idle.map_or_else(|| self.instance(), Ok) {
            Ok(instance) => instance,
            Err(error) => return (Err(error), Trial::default()),
        };
        instance.store.data_mut().captured = Some(Vec::new());
        let mut trial = Trial::default();
        let answer = self.call(instance, asked, |exports, store| {
            let started = Instant::now();
            let answer = call(exports, store);
            trial = Trial {
                elapsed: started.elapsed(),
                log: store.data_mut().captured.take().unwrap_or_default(),
                memory: store.data().meter.memory,
            };
            answer
        });
        (answer, trial)
    }

    fn place(&self) -> Result<Place<'_>, CallError> {
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limits.queue {
            return Err(CallError::QueueFull(self.limits.queue));
        }
        Ok(place)
    }

    /// A new, configured instance.
    pub(super) fn instance(&self) -> Result<Box<Instance>, CallError> {
        let state = State::new(self.limits.memory, Arc::clone(&self.shared));
        let mut store = Store::new(&self.host.engine, state);
        store.limiter(|state| &mut state.meter);
        store.set_epoch_deadline(self.host.ticks(self.limits.configure_deadline));
        let made = self.compiled.instantiate(&mut store).and_then(|exports| {
            let configured = match &exports.lifecycle {
                Some(lifecycle) => lifecycle.call_configure(&mut store, &self.config)?,
                None => Ok(()),
            };
            Ok(configured.map(|()| exports))
        });
        store.data_mut().end();
        match made {
            Ok(Ok(exports)) => Ok(Box::new(Instance { store, exports, calls: 0 })),
            Ok(Err(text)) => Err(CallError::Returned(format!("configure: {text}"))),
            Err(error) => {
                Err(self.reason(&error, &store, "making an instance", self.limits.configure_deadline))
            }
        }
    }

    fn give_back(&self, instance: Box<Instance>) {
        let memory = instance.store.data().meter.memory;
        self.stats.memory_is(memory);
        if instance.calls >= self.limits.recycle_calls || memory >= self.limits.recycle_memory {
            self.stats.recycled();
            return;
        }
        let mut idle = self.idle();
        if idle.len() < self.limits.instances {
            idle.push(instance);
        }
    }

    fn behaved(&self) {
        if self.probation.load(Ordering::Relaxed) > 0 {
            let less = |left: u32| left.checked_sub(1);
            let _ = self.probation.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    fn broken(&self, error: &wasmtime::Error, instance: &Instance) -> CallError {
        self.reason(error, &instance.store, "", self.limits.deadline)
    }

    fn reason(
        &self,
        error: &wasmtime::Error,
        store: &Store<State>,
        during: &str,
        deadline: Duration,
    ) -> CallError {
        if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
            self.stats.overran();
            return CallError::Overrun(deadline);
        }
        self.stats.trapped();
        let advice = match store.data().meter.refused {
            true => format!(" (out of memory: plugins.limits.memory is {} bytes)", self.limits.memory),
            false => String::new(),
        };
        let root = error.root_cause().to_string();
        let during = if during.is_empty() { String::new() } else { format!("{during}: ") };
        CallError::Trapped(super::bind::one_line(&format!("{during}{root}{advice}"), 1024))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Box<Instance>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is to tell of one call apart from traffic.
#[derive(Debug, Clone, Default)]
pub(super) struct Trial {
    pub(super) elapsed: Duration,
    /// Level and text of each line that the plugin logged.
    pub(super) log: Vec<(String, String)>,
    /// Bytes of the instance's memory.
    pub(super) memory: usize,
}

/// The interfaces that an instance exports.
pub(super) struct Exports {
    pub(super) ingress: Option<ingress::Guest>,
    pub(super) forwarder: Option<forwarder::Guest>,
    pub(super) lifecycle: Option<lifecycle::Guest>,
}

/// A place in the queue.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
