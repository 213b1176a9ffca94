//! A decision by a plugin whose instance is there and waits.

use super::{RULES, asked, hosts, name};
use pointsman::plugin::{Binding, Chain, CompiledCache, Limits, OnError, Plugin, Runtime, Source};
use pointsman::route::ingress::Table;
use pointsman::route::{Answer, Ingress};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `plugins/yaml-ingress` with 1000 rules, its answers used once.
pub(super) fn call() -> Box<dyn FnMut()> {
    // Valgrind is slow, and no call may be ended for that.
    let long = Duration::from_secs(600);
    let limits =
        Limits { cached_decisions: 1, deadline: long, configure_deadline: long, ..Limits::default() };
    // Compiling inside of valgrind takes half a minute.
    let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions-compiled");
    let runtime = Runtime::new(limits, CompiledCache::open(&compiled).unwrap()).unwrap();
    let plugin = Plugin::new(&runtime, "yaml-ingress");
    plugin.install(&Source { code: code(), config: rules(), cases: None }).unwrap();
    let chain = Chain::bound(Binding::new(plugin, OnError::Refuse), Table::new(&[]).0);
    let mut hosts = hosts();
    Box::new(move || match chain.resolve(&asked(hosts.next().unwrap(), None)) {
        Answer::Now(decision) => drop(black_box(decision.unwrap())),
        _ => panic!("no instance was free"),
    })
}

fn code() -> Vec<u8> {
    let folder = std::env::var_os("PLUGINS").map(PathBuf::from);
    let file = folder.expect("PLUGINS names the folder that `make plugins` fills").join("yaml-ingress.wasm");
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn rules() -> String {
    (0..RULES).map(|i| format!("{} 4d21094e-b74c-4916-86c1-d9fa36ea677b\n", name(i))).collect()
}
