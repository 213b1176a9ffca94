//! A plugin apart from traffic, for its author: what is in a file, what it answers, what a call costs.

use super::ask::{Generation, Tried};
use super::cases::{Case, Outcome, Question};
use super::load::{Compiled, Roles, Version};
use super::{CompiledCache, InstallError, LoadError, Runtime, wasi, wrap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use wasmtime::component::Component;

/// What is in a file.
#[derive(Debug)]
pub struct Inspection {
    /// The hash of its bytes.
    pub version: Version,
    /// Bytes.
    pub size: usize,
    /// Whether it is a core module, of which a component is made when it is loaded.
    pub wrapped: bool,
    /// Interfaces and functions that it imports.
    pub imports: Vec<String>,
    /// Interfaces and functions that it exports.
    pub exports: Vec<String>,
    /// Functions of WASI's that it imports and that refuse when they are called.
    pub denied: Vec<String>,
    /// What it decides; nothing for a file that is no plugin.
    pub roles: Roles,
    /// Why it is no plugin.
    pub problem: Option<LoadError>,
}

/// One plugin with a store and counts of its own.
#[derive(Debug)]
pub struct Workbench {
    runtime: Runtime,
    generation: Arc<Generation>,
}

/// One question to one plugin, to be asked as often as one likes.
#[derive(Debug)]
pub struct Asking<'a> {
    generation: &'a Arc<Generation>,
    question: Question,
}

impl Asking<'_> {
    fn call(&self) -> Tried {
        self.question.try_out(self.generation)
    }

    /// Asks the plugin, and says whether it answered.
    pub fn ask(&self) -> bool {
        self.call().answer.is_ok()
    }

    /// Asks as traffic does: the decision cache first.
    pub fn ask_as_traffic(&self) {
        self.question.ask(self.generation);
    }

    /// Whether an answer that was given once comes from the decision cache.
    fn is_reusable(&self) -> bool {
        let hits = || self.generation.pool.stats.snapshot().cache_hits;
        self.ask_as_traffic();
        let before = hits();
        self.ask_as_traffic();
        hits() > before
    }
}

/// What calls cost: nanoseconds from the question to the checked answer, the decision cache left out.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Each call's, in ascending order; never empty.
    pub nanos: Vec<u64>,
    /// Calls that failed.
    pub failed: usize,
    /// Bytes of memory of the instance that was asked last.
    pub memory: usize,
    /// The same question answered from the decision cache; absent where the plugin's answer may not be given again.
    pub cached: Option<Vec<u64>>,
}

/// What a start costs.
#[derive(Debug, Clone)]
pub struct Start {
    /// From the file's bytes to machine code, wrapping of a core module included.
    pub compile: Duration,
    /// The same from the folder with compiled code; absent without one.
    pub cached_load: Option<Duration>,
    /// A new instance, configured: the median of as many as time was for.
    pub instance: Duration,
}

/// Calls whose times are kept; there is nothing to learn from more.
const MAX_SAMPLES: usize = 1 << 20;

/// Questions before the first that counts, so that code and memory are there.
const WARM_UP: usize = 100;

/// What each of the smaller measurements may take, of all the time there is.
const SMALL_SHARE: u32 = 8;

impl Runtime {
    /// Looks at a file without running anything of it.
    pub fn inspect(&self, code: &[u8]) -> Inspection {
        let mut found = Inspection {
            version: Version::of(code),
            size: code.len(),
            wrapped: wrap::is_module(code),
            imports: Vec::new(),
            exports: Vec::new(),
            denied: Vec::new(),
            roles: Roles::default(),
            problem: None,
        };
        match Compiled::component(&self.host, &self.cache, &found.version, code) {
            Ok(component) => self.look_into(&component, &mut found),
            Err(problem) => found.problem = Some(problem),
        }
        found
    }

    fn look_into(&self, component: &Component, found: &mut Inspection) {
        let engine = &self.host.engine;
        let ty = component.component_type();
        found.imports = ty.imports(engine).map(|(name, _)| name.to_owned()).collect();
        found.exports = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
        // Where these cannot be told the linker fails as well, and says why.
        found.denied = wasi::denied(component).unwrap_or_default();
        match Compiled::link(engine, found.version, component) {
            Ok(compiled) => found.roles = compiled.roles,
            Err(problem) => found.problem = Some(problem),
        }
    }
}

impl Workbench {
    /// Loads, instantiates and configures a plugin.
    ///
    /// # Errors
    ///
    /// When any of that fails.
    pub fn new(runtime: &Runtime, name: &str, code: &[u8], config: &str) -> Result<Self, InstallError> {
        let compiled = Compiled::load(&runtime.host, &runtime.cache, code)?;
        let generation = runtime.generation(compiled, config, runtime.shared(name), Arc::default())?;
        Ok(Self { runtime: runtime.clone(), generation })
    }

    /// What it decides.
    pub fn roles(&self) -> Roles {
        self.generation.pool.compiled.roles
    }

    /// Asks one question.
    ///
    /// # Errors
    ///
    /// When the question is none; a plugin that fails is an outcome.
    pub fn ask(&self, case: &Case) -> Result<Outcome, String> {
        case.run(&self.generation)
    }

    /// A question to be asked again and again; what its case puts into the store is there.
    ///
    /// # Errors
    ///
    /// When the question is none.
    pub fn asking(&self, case: &Case) -> Result<Asking<'_>, String> {
        Ok(Asking { generation: &self.generation, question: case.prepare(&self.generation)? })
    }

    /// Asks one question again and again for about as long as `time`.
    ///
    /// # Errors
    ///
    /// When the question is none.
    pub fn pace(&self, case: &Case, time: Duration) -> Result<Pace, String> {
        let asking = self.asking(case)?;
        let until = Instant::now() + time;
        for _ in 0..WARM_UP {
            if !asking.ask() || Instant::now() >= until {
                break;
            }
        }
        let (mut failed, mut memory) = (0, 0);
        let nanos = sample(until, || {
            let tried = asking.call();
            failed += usize::from(tried.answer.is_err());
            memory = tried.trial.memory;
        });
        let cached = asking
            .is_reusable()
            .then(|| sample(Instant::now() + time / SMALL_SHARE, || asking.ask_as_traffic()));
        Ok(Pace { nanos, failed, memory, cached })
    }

    /// Makes one more instance, configures it and throws it away.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn instance(&self) -> Result<(), InstallError> {
        Ok(self.generation.pool.instance().map(drop)?)
    }

    /// Starts the plugin in `code` anew for about as long as `time`, or as long as compiling takes.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(&self, code: &[u8], time: Duration) -> Result<Start, InstallError> {
        let Runtime { host, cache, .. } = &self.runtime;
        let begin = Instant::now();
        let version = Version::of(code);
        Compiled::component(host, &CompiledCache::default(), &version, code)?;
        let compile = begin.elapsed();
        // It was put there when the plugin was loaded.
        let cached_load = cache.get(&host.engine, &version).is_some().then(|| {
            median(sample(Instant::now() + time / SMALL_SHARE, || drop(cache.get(&host.engine, &version))))
        });
        let mut failure = None;
        let instances = sample(Instant::now() + time / 2, || {
            failure = self.instance().err();
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(Start { compile, cached_load, instance: median(instances) }),
        }
    }
}

/// How long each of as many runs took as there is time for, at least one, in ascending order.
fn sample(until: Instant, mut run: impl FnMut()) -> Vec<u64> {
    let mut nanos = Vec::new();
    let mut before = Instant::now();
    loop {
        run();
        let after = Instant::now();
        nanos.push(u64::try_from((after - before).as_nanos()).unwrap_or(u64::MAX));
        if after >= until || nanos.len() >= MAX_SAMPLES {
            nanos.sort_unstable();
            return nanos;
        }
        before = after;
    }
}

fn median(nanos: Vec<u64>) -> Duration {
    Duration::from_nanos(nanos[nanos.len() / 2])
}
