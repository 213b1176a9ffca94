//! The one place that chooses wasmtime's settings: allocator, limits, and the clock that ends calls which overrun.
//!
//! Everything a guest can grow has a bound here; what a guest can reach is in `bind` and `wasi`.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::time::Instant;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter, Result, Store,
};

/// What plugins may use: `plugins.limits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `memory`: bytes of linear memory of one instance, all its memories together.
    pub memory: usize,
    /// `deadline`: of one decision.
    pub deadline: Duration,
    /// `configureDeadline`: from the making of an instance to the end of `configure`.
    pub configure_deadline: Duration,
    /// `instances`: warm instances of one plugin.
    pub instances: usize,
    /// `queue`: decisions of one plugin that may wait for an instance; more fail at once.
    pub queue: usize,
    /// `recycleCalls`: an instance that has answered so often is replaced by a new one.
    pub recycle_calls: u64,
    /// `recycleMemory`: an instance whose memory has grown to this many bytes is replaced by a new one.
    pub recycle_memory: usize,
    /// `storeKeys`: keys in the store of one plugin.
    pub store_keys: usize,
    /// `storeSize`: bytes of keys and values in it.
    pub store_size: usize,
    /// `cachedDecisions`: answers of one plugin that are kept for reuse.
    pub cached_decisions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let memory = 64 << 20;
        Self {
            memory,
            deadline: Duration::from_millis(5),
            configure_deadline: Duration::from_secs(10),
            instances: thread::available_parallelism().map_or(2, NonZeroUsize::get).max(2),
            queue: 256,
            recycle_calls: 1_000_000,
            recycle_memory: memory / 4 * 3,
            store_keys: 10_000,
            store_size: 4 << 20,
            cached_decisions: 10_000,
        }
    }
}

/// How far apart the clock's ticks are while calls are under way: a deadline is met to within one of them.
const TICK: Duration = Duration::from_millis(1);

/// The clock goes on for so many ticks after the last deadline, so that a busy proxy need not wake it for each call.
const IDLE_TICKS: u64 = 100;

/// The longest deadline, in ticks: about 35 years, and no sum of it and the time overflows.
const MAX_TICKS: u64 = 1 << 40;

/// Instances of all plugins together. The pool sets aside addresses, not memory, for each: 4 GiB.
const TOTAL_INSTANCES: u32 = 1000;

/// Where the system does not grant as many addresses (`ulimit -v`, valgrind), the pool is made smaller, but not smaller than this:
/// each plugin has a few instances, and a new version is tried beside the old one.
const LEAST_INSTANCES: u32 = 15;

/// The same for what instances are made of: those of slow languages have many parts.
const CORE_INSTANCES_EACH: u32 = 4;
const TABLES_EACH: u32 = 8;

/// Core instances in one component: Python's have 38.
const CORE_INSTANCES: u32 = 64;

/// Memories in one component: QuickJS's have more than one.
const MEMORIES: u32 = 4;

/// Tables in one component, and entries in one of them: without it a guest could fill the memory with references.
const TABLES: u32 = 48;
const TABLE_ELEMENTS: usize = 20_000;

/// Stack of one call. It lies on the stack of the thread that calls, of which tokio's have 2 MiB.
const STACK: usize = 512 * 1024;

/// Memory that a slot keeps for the next instance instead of giving it back to the system.
const KEEP_RESIDENT: usize = 256 * 1024;

/// The compiler and the pool of instances that all plugins share.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) engine: Engine,
    clock: Clock,
    /// What the pool has room for.
    instances: u32,
}

impl Host {
    /// An engine whose instances may have at most `memory` bytes in one memory.
    pub(super) fn new(memory: usize) -> Result<Arc<Self>> {
        let (engine, instances) = engine(memory)?;
        Ok(Arc::new(Self { clock: Clock::start(&engine), engine, instances }))
    }

    /// Has `store` ask its budget after so long at the least, and up to one tick later.
    pub(super) fn wait<T>(&self, store: &mut Store<T>, part: Duration) {
        let ticks = whole_ticks(part) + 1;
        store.set_epoch_deadline(ticks);
        self.clock.go_on(ticks);
    }

    /// Ticks until it asks again, with the clock going until then.
    pub(super) fn wait_again(&self, part: Duration) -> u64 {
        let ticks = whole_ticks(part) + u64::from(!part.as_nanos().is_multiple_of(TICK.as_nanos()));
        self.clock.go_on(ticks);
        ticks
    }

    /// Whether instances may be made that nobody waits for; the others are for new plugins and for calls.
    pub(super) fn has_room(&self) -> bool {
        self.engine.pooling_allocator_metrics().is_none_or(|used| {
            let half = self.instances / 2;
            used.component_instances() < u64::from(half)
                && used.core_instances() < u64::from(half * CORE_INSTANCES_EACH)
                && used.memories() < half as usize
                && used.tables() < (half * TABLES_EACH) as usize
        })
    }
}

fn whole_ticks(time: Duration) -> u64 {
    // Every call asks, and milliseconds are there without a division of 128 bits.
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(MAX_TICKS).min(MAX_TICKS)
}

/// A call that gets no share of the processor is ended after so many times its deadline.
const MAX_WAIT: u32 = 20;

/// How long a call may still run.
///
/// The first half of its deadline is real time, which costs nothing to know. What is left counts on the clock of the thread
/// that runs it: on a machine that is busy with other things a plugin does not look slow because it had to wait.
#[derive(Debug, Default)]
pub(super) struct Budget {
    deadline: Duration,
    /// When the first half was over, and what the thread's clock said.
    half: Option<(Instant, Duration)>,
}

impl Budget {
    pub(super) fn new(deadline: Duration) -> Self {
        Self { deadline, half: None }
    }

    /// The part that costs nothing.
    pub(super) fn first(&self) -> Duration {
        self.deadline / 2
    }

    /// At the end of a part: how much longer the call may go on.
    pub(super) fn more(&mut self) -> Option<Duration> {
        let rest = self.deadline - self.first();
        let Some((since, busy)) = self.half else {
            self.half = Some((Instant::now(), thread_time()));
            return Some(rest);
        };
        let left = rest.checked_sub(thread_time().saturating_sub(busy))?;
        (left >= TICK && since.elapsed() < self.deadline * MAX_WAIT).then_some(left)
    }
}

/// For how long this thread has had a processor.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// An engine, and for how many instances its pool has room.
fn engine(memory: usize) -> Result<(Engine, u32)> {
    let mut instances = TOTAL_INSTANCES;
    let engine = loop {
        match Engine::new(&config(memory, instances)) {
            Err(_) if instances > LEAST_INSTANCES => instances = (instances / 8).max(LEAST_INSTANCES),
            done => break done?,
        }
    };
    if instances < TOTAL_INSTANCES {
        tracing::warn!(
            instances,
            "the system grants few addresses: there is room for few instances of plugins"
        );
    }
    Ok((engine, instances))
}

fn config(memory: usize, instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * CORE_INSTANCES_EACH)
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_memories(instances)
        .max_memories_per_component(MEMORIES)
        .total_tables(instances * TABLES_EACH)
        .max_tables_per_component(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(memory)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // Its bookkeeping doubles the price of a call, and nothing here is asynchronous.
        .concurrency_support(false)
        .max_wasm_stack(STACK)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16))
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Advances the engine's epoch until every deadline is over, and sleeps when there is none.
#[derive(Debug)]
struct Clock {
    state: Arc<ClockState>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct ClockState {
    /// Ticks so far; the engine's epoch is never ahead of it.
    ticks: AtomicU64,
    /// The tick of the last deadline.
    until: AtomicU64,
    /// The thread is parked, or about to be.
    asleep: AtomicBool,
}

impl ClockState {
    fn is_wanted(&self) -> bool {
        self.ticks.load(Ordering::SeqCst) < self.until.load(Ordering::SeqCst) + IDLE_TICKS
    }
}

impl Clock {
    fn start(engine: &Engine) -> Self {
        let state = Arc::new(ClockState::default());
        let (weak_state, engine) = (Arc::downgrade(&state), engine.weak());
        let thread = thread::spawn(move || {
            while let (Some(engine), true) = (engine.upgrade(), tick(&weak_state)) {
                engine.increment_epoch();
                drop(engine);
                thread::park_timeout(TICK);
            }
        });
        Self { state, thread }
    }

    /// Goes on for so many ticks from now. To be called after the deadline was set, so that it cannot lie behind them.
    fn go_on(&self, ticks: u64) {
        let until = self.state.ticks.load(Ordering::SeqCst) + ticks;
        // Reading first keeps the line shared between cores in the usual case.
        if self.state.until.load(Ordering::SeqCst) < until {
            self.state.until.fetch_max(until, Ordering::SeqCst);
        }
        if self.state.asleep.load(Ordering::SeqCst) {
            self.thread.thread().unpark();
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.thread.thread().unpark();
    }
}

/// Before each tick: sleeps while there is nothing to time. `false` once the engine's owner is gone.
fn tick(state: &Weak<ClockState>) -> bool {
    let Some(mut state_now) = state.upgrade() else { return false };
    if !state_now.is_wanted() {
        state_now.asleep.store(true, Ordering::SeqCst);
        // A call that began in between has seen a clock that was awake.
        if !state_now.is_wanted() {
            drop(state_now);
            thread::park();
            let Some(state) = state.upgrade() else { return false };
            state_now = state;
        }
        state_now.asleep.store(false, Ordering::SeqCst);
    }
    state_now.ticks.fetch_add(1, Ordering::SeqCst);
    true
}

/// Counts what one instance has, and says no beyond its limits.
#[derive(Debug)]
pub(super) struct Meter {
    limit: usize,
    /// Bytes in all memories of the instance.
    pub(super) memory: usize,
    /// Whether it was ever told no: the trap that follows is then for want of memory.
    pub(super) refused: bool,
}

impl Meter {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, memory: 0, refused: false }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, most: Option<usize>) -> Result<bool> {
        if most.is_some_and(|most| desired > most) {
            // The memory's own type says no: nothing grows, so nothing is counted.
            return Ok(false);
        }
        let total = self.memory.saturating_sub(current).saturating_add(desired);
        if total > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}
