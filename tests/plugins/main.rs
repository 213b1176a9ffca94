//! The plugins of `plugins/`, built by `make plugins`, in the host that they are for. Run by `make test`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common_table;
mod examples;
mod new;
mod yaml_ingress;

use pointsman::plugin::{CompiledCache, Limits, Runtime};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The file of a built plugin.
fn built(name: &str) -> PathBuf {
    let dir = std::env::var_os("PLUGINS").map(PathBuf::from);
    dir.expect("PLUGINS names the folder of the built plugins: run `make test`").join(format!("{name}.wasm"))
}

/// Where compiled code is kept from one test and one run to the next: Python's takes seconds.
fn compiled() -> CompiledCache {
    CompiledCache::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")).unwrap()
}

/// For the test that gives plugins no more time than users do, and the one that keeps every core busy with compilers.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compiled code is kept in `dir`: the same plugin is installed again and again.
fn runtime(dir: &tempfile::TempDir) -> Runtime {
    // A machine that is busy with other tests is no fault of a plugin.
    let limits = Limits { instances: 1, deadline: Duration::from_secs(5), ..Limits::default() };
    Runtime::new(limits, CompiledCache::open(&dir.path().join("compiled")).unwrap()).unwrap()
}
