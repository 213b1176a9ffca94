//! Warm instances of one version of a plugin: taken for a call, given back after it, replaced when they are worn or broken.
//!
//! A call runs on the thread that asks. What `probation` holds is asked on threads of its own, so that it cannot hold those that
//! serve connections, and so are questions for which an instance has to be made, on others.

use super::bind::{Asked, Shared, State, admission, forwarder, ingress, lifecycle, one_line};
use super::engine::{Budget, Host, Limits};
use super::idle::Idle;
use super::load::Compiled;
use super::probation::{Place, Probation};
use super::stats::Stats;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wasmtime::{Store, Trap, UpdateDeadline};

/// Bytes that one call may hand over to the host: an answer is a few hundred.
const MAX_ANSWER: usize = 1 << 20;

/// Bytes of an error's text that are kept.
const MAX_ERROR: usize = 1024;

/// Threads that one plugin may hold with questions on probation, and as many with the making of instances.
const THREADS: usize = 2;

/// How many deadlines a question on probation waits for a thread.
const PATIENCE: u32 = 20;

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
    #[error("no answer within {0:?} (plugins.limits.{1})")]
    Overrun(Duration, &'static str),
    /// Its answer is none: no UUID, no such node, an address that is not allowed.
    #[error("{0}")]
    BadAnswer(String),
    /// Too many decisions wait for it.
    #[error("{0} decisions wait for this plugin already (plugins.limits.queue)")]
    QueueFull(usize),
    /// It waited for others that take too long.
    #[error("the decisions before this one took {0:?} (plugins.limits.{1})")]
    QueueSlow(Duration, &'static str),
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
    /// Boxed: what goes from hand to hand with every call is small.
    idle: Idle<Box<Instance>>,
    probation: Probation,
    /// It has answered: what `onError: last-good` calls good.
    answered: AtomicBool,
    waiting: Arc<AtomicUsize>,
    /// For questions on probation.
    suspect: Arc<Semaphore>,
    /// For those that wait for an instance.
    making: Arc<Semaphore>,
}

/// An instance that has been configured.
pub(super) struct Instance {
    store: Store<State>,
    exports: Exports,
    calls: u64,
    /// Bytes of its memory when it was new.
    born_with: usize,
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
            idle: Idle::new(limits.instances),
            probation: Probation::new(),
            answered: AtomicBool::new(false),
            waiting: Arc::default(),
            suspect: Arc::new(Semaphore::new(THREADS)),
            making: Arc::new(Semaphore::new(THREADS)),
        };
        let first = pool.instance()?;
        pool.give_back(first);
        Ok(pool)
    }

    /// Makes instances until there are as many as may be warm, or until other plugins would lack room.
    pub(super) fn fill(&self) {
        let warm = self.idle.len();
        for _ in warm..self.limits.instances {
            if !self.host.has_room() {
                return;
            }
            match self.instance() {
                Ok(instance) => self.give_back(instance),
                Err(error) => {
                    return tracing::warn!(plugin = &*self.shared.name, %error, "cannot make another instance");
                }
            }
        }
    }

    /// An instance to call on this thread. `about`: what the question is about, by which it may be on probation.
    ///
    /// # Errors
    ///
    /// Where none is there, or the question is on probation: how it is to be asked instead.
    pub(super) fn ready(&self, about: &str) -> Result<Box<Instance>, Aside> {
        if self.probation.holds(about) {
            return Err(Aside::Suspect);
        }
        self.idle.pop(0).ok_or(Aside::Waits)
    }

    /// The place of a question, for [`Self::call_aside`].
    pub(super) fn place(&self, about: &str) -> Place {
        self.probation.place(about)
    }

    /// Calls on this thread, for traffic.
    pub(super) fn call<T>(
        &self,
        instance: Box<Instance>,
        about: &str,
        asked: Asked,
        call: impl FnOnce(&Exports, &mut Store<State>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, CallError> {
        let answer = self.call_with(instance, asked, call);
        if is_failure(&answer) {
            self.probation.failed(self.probation.place(about), false);
        }
        answer
    }

    /// Calls on this thread. The outer error of `call` is a trap, the inner one the plugin's own.
    fn call_with<T>(
        &self,
        mut instance: Box<Instance>,
        asked: Asked,
        call: impl FnOnce(&Exports, &mut Store<State>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, CallError> {
        let Instance { store, exports, calls, .. } = &mut *instance;
        store.data_mut().begin(asked);
        self.allow(store, self.limits.deadline);
        let started = Instant::now();
        let answer = call(exports, store);
        let elapsed = started.elapsed();
        store.data_mut().end();
        *calls += 1;
        self.stats.called(elapsed);
        match answer {
            Ok(answer) => {
                if answer.is_ok() && !self.has_answered() {
                    self.answered.store(true, Ordering::Relaxed);
                }
                self.give_back(instance);
                answer.map_err(|text| CallError::Returned(one_line(&text, MAX_ERROR)))
            }
            Err(error) if is_overrun(&error) => {
                self.stats.overran();
                Err(CallError::Overrun(self.limits.deadline, "deadline"))
            }
            Err(error) => Err(self.trap(&error, &instance.store, "")),
        }
    }

    /// Calls on a thread of its own, making an instance if there is none. At most `plugins.limits.queue` may wait for that.
    pub(super) async fn call_aside<T: Send + 'static>(
        self: Arc<Self>,
        aside: Aside,
        place: Place,
        asked: Asked,
        call: impl FnOnce(&Exports, &mut Store<State>) -> wasmtime::Result<Result<T, String>> + Send + 'static,
    ) -> Result<T, CallError> {
        let queued = self.queue()?;
        let (threads, wait, setting) = match aside {
            Aside::Suspect => (&self.suspect, self.limits.deadline * PATIENCE, "deadline"),
            Aside::Waits => (&self.making, self.limits.configure_deadline, "configureDeadline"),
        };
        let thread = tokio::time::timeout(wait, Arc::clone(threads).acquire_owned()).await;
        let thread = thread.map_err(|_| CallError::QueueSlow(wait, setting))?;
        let pool = Arc::clone(&self);
        let called = tokio::task::spawn_blocking(move || {
            // The call goes on when nobody waits for it any more, and so does what it holds.
            let _held = (queued, thread);
            // The last warm one is not for a question that it may not survive.
            let spared = usize::from(aside == Aside::Suspect);
            let instance = pool.idle.pop(spared).map_or_else(|| pool.instance(), Ok)?;
            let answer = pool.call_with(instance, asked, call);
            if is_failure(&answer) {
                pool.probation.failed(place, true);
            }
            answer
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
        let mut instance = match self.idle.pop(0).map_or_else(|| self.instance(), Ok) {
            Ok(instance) => instance,
            Err(error) => return (Err(error), Trial::default()),
        };
        instance.store.data_mut().captured = Some(Vec::new());
        let mut trial = Trial::default();
        let answer = self.call_with(instance, asked, |exports, store| {
            let started = Instant::now();
            let answer = call(exports, store);
            trial = Trial {
                elapsed: started.elapsed(),
                log: store.data_mut().take_captured(),
                memory: store.data().meter.memory,
            };
            answer
        });
        (answer, trial)
    }

    fn queue(&self) -> Result<Queued, CallError> {
        let queued = Queued(Arc::clone(&self.waiting));
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limits.queue {
            return Err(CallError::QueueFull(self.limits.queue));
        }
        Ok(queued)
    }

    /// A new, configured instance.
    pub(super) fn instance(&self) -> Result<Box<Instance>, CallError> {
        let state = State::new(self.limits.memory, Arc::clone(&self.shared));
        let mut store = Store::new(&self.host.engine, state);
        store.limiter(|state| &mut state.meter);
        store.set_hostcall_fuel(MAX_ANSWER);
        let host = Arc::clone(&self.host);
        store.epoch_deadline_callback(move |mut store| match store.data_mut().budget.more() {
            Some(more) => Ok(UpdateDeadline::Continue(host.wait_again(more))),
            None => Err(Trap::Interrupt.into()),
        });
        self.allow(&mut store, self.limits.configure_deadline);
        let made = self.compiled.instantiate(&mut store).and_then(|exports| {
            let configured = match &exports.lifecycle {
                Some(lifecycle) => lifecycle.call_configure(&mut store, &self.config)?,
                None => Ok(()),
            };
            Ok(configured.map(|()| exports))
        });
        store.data_mut().end();
        match made {
            Ok(Ok(exports)) => {
                let born_with = store.data().meter.memory;
                Ok(Box::new(Instance { store, exports, calls: 0, born_with }))
            }
            Ok(Err(text)) => Err(CallError::Returned(format!("configure: {}", one_line(&text, MAX_ERROR)))),
            Err(error) if is_overrun(&error) => {
                self.stats.overran();
                Err(CallError::Overrun(self.limits.configure_deadline, "configureDeadline"))
            }
            Err(error) => Err(self.trap(&error, &store, "making an instance: ")),
        }
    }

    /// Lets the next call run for so long.
    fn allow(&self, store: &mut Store<State>, deadline: Duration) {
        let budget = Budget::new(deadline);
        self.host.wait(store, budget.first());
        store.data_mut().budget = budget;
    }

    fn give_back(&self, instance: Box<Instance>) {
        let memory = instance.store.data().meter.memory;
        self.stats.memory_is(memory);
        // A new one would be no better than one that has not grown.
        let grown = memory >= self.limits.recycle_memory && memory > instance.born_with;
        if instance.calls >= self.limits.recycle_calls || grown {
            self.stats.recycled();
            return;
        }
        // One made for a call is kept like one of `fill`'s: only where there is room for it.
        if instance.calls != 1 || self.idle.len() == 0 || self.host.has_room() {
            self.idle.push(instance);
        }
    }

    /// Whether it has ever answered a question, with anything but an error.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    fn trap(&self, error: &wasmtime::Error, store: &Store<State>, during: &str) -> CallError {
        self.stats.trapped();
        let advice = if store.data().meter.refused {
            format!(" (out of memory: plugins.limits.memory is {} bytes)", self.limits.memory)
        } else if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            " (too many instances: lower plugins.limits.instances, or use fewer plugins)".to_owned()
        } else {
            String::new()
        };
        let root = error.root_cause();
        CallError::Trapped(one_line(&format!("{during}{root}{advice}"), MAX_ERROR))
    }
}

/// Whether the instance is lost, and time with it.
fn is_failure<T>(answer: &Result<T, CallError>) -> bool {
    matches!(answer, Err(CallError::Trapped(_) | CallError::Overrun(..)))
}

fn is_overrun(error: &wasmtime::Error) -> bool {
    error.downcast_ref::<Trap>() == Some(&Trap::Interrupt)
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
    pub(super) admission: Option<admission::Guest>,
    pub(super) lifecycle: Option<lifecycle::Guest>,
}

/// Why a question is asked on a thread of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    /// It is on probation.
    Suspect,
    /// No instance is free.
    Waits,
}

/// A place in the queue.
struct Queued(Arc<AtomicUsize>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
