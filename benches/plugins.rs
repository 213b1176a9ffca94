//! What decisions by plugins cost: `make plugins`, then `PLUGINS=target/plugins cargo bench --bench plugins`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on panics")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pointsman::addr::Host;
use pointsman::plugin::{
    Binding, Case, Cases, Chain, CompiledCache, Limits, OnError, Plugin, Runtime, Source, Workbench,
};
use pointsman::route::ingress::{Rule, Table};
use pointsman::route::{Answer, Endpoint, Ingress, Protocol, Request};
use std::fmt::Write;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RULES: usize = 10_000;
const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = decisions, languages, starts
}
criterion_main!(benches);

/// The same 10,000 rules: natively linked, as a component, and as a component whose answers may be given again.
fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("decision");
    let hosts: Vec<_> = (0..RULES).map(|i| Host::parse(&host(i * 7919 % RULES)).unwrap()).collect();
    let mut hosts = hosts.iter().cycle();
    let (table, _) = Table::new(&rules());
    let serving = tokio::runtime::Runtime::new().unwrap();
    let decide = |ingress: &dyn Ingress, host: &Host| match resolve(ingress, host) {
        Answer::Now(decision) => drop(black_box(decision.unwrap())),
        // An instance that has answered often enough is replaced.
        later => drop(serving.block_on(later.wait()).unwrap()),
    };
    group.bench_function("built-in rules", |b| b.iter(|| decide(&table, hosts.next().unwrap())));
    // A cache for one answer never has that for the next host.
    let limits = Limits { cached_decisions: 1, ..Limits::default() };
    let component = component(&Runtime::new(limits, CompiledCache::default()).unwrap());
    group.bench_function("warm Rust component", |b| b.iter(|| decide(&component, hosts.next().unwrap())));
    let cached = self::component(&runtime(&CompiledCache::default()));
    let one = hosts.next().unwrap();
    group.bench_function("cached verdict", |b| b.iter(|| decide(&cached, one)));
    // With an instance for each core the time of a call falls by their number.
    group.bench_function("64 connections at once", |b| {
        b.iter_custom(|calls| {
            let each = calls.div_ceil(64);
            let ask = |n: u64| {
                let component = component.clone();
                let own: Vec<_> = hosts.clone().skip(n as usize * 100).take(100).cloned().collect();
                async move {
                    for host in own.iter().cycle().take(each as usize) {
                        drop(black_box(resolve(&component, host).wait().await.unwrap()));
                    }
                }
            };
            let began = Instant::now();
            serving.block_on(futures_util::future::join_all((0..64).map(|n| serving.spawn(ask(n)))));
            began.elapsed().mul_f64(calls as f64 / (each * 64) as f64)
        });
    });
}

fn resolve(ingress: &dyn Ingress, hostname: &Host) -> Answer<Endpoint> {
    let request = Request {
        hostname: hostname.clone(),
        protocol: Protocol::Tls,
        client: ([192, 0, 2, 1], 4000).into(),
        service: "web",
        http: None,
        extra: Default::default(),
    };
    ingress.resolve(&request)
}

/// `plugins/yaml-ingress` with the rules.
fn component(runtime: &Runtime) -> Chain {
    let plugin = Plugin::new(runtime, "yaml-ingress");
    plugin.install(&Source { code: built("yaml-ingress"), config: written(), cases: None }).unwrap();
    Chain::bound(Binding::new(plugin, OnError::Refuse), Table::new(&[]).0)
}

/// The first question of each example's decision table, the cache left out.
fn languages(c: &mut Criterion) {
    let mut group = c.benchmark_group("example");
    let (_dir, cache) = cache();
    for example in examples() {
        let (workbench, case) = example.workbench(&runtime(&cache));
        let asking = workbench.asking(&case).unwrap();
        assert!(asking.ask());
        group.bench_function(&example.name, |b| b.iter(|| asking.ask()));
    }
}

fn starts(c: &mut Criterion) {
    let mut group = c.benchmark_group("start");
    group.sample_size(10);
    let rust = built("canary");
    let none = runtime(&CompiledCache::default());
    group.bench_function("compile Rust", |b| b.iter(|| none.inspect(&rust)));
    let (_dir, cache) = cache();
    let runtime = runtime(&cache);
    for example in examples() {
        let (workbench, _) = example.workbench(&runtime);
        let name = |what| format!("{what} {}", example.name);
        group.bench_function(name("cached load of"), |b| b.iter(|| runtime.inspect(&example.code)));
        group.bench_function(name("new instance of"), |b| b.iter(|| workbench.instance().unwrap()));
    }
    let source = || Source { code: built("yaml-ingress"), config: written(), cases: None };
    let plugin = Plugin::new(&runtime, "yaml-ingress");
    plugin.install(&source()).unwrap();
    group.bench_function("swap a Rust component with 10,000 rules", |b| {
        b.iter_batched(source, |source| plugin.install(&source).unwrap(), BatchSize::SmallInput);
    });
}

/// An example with its configuration and decision table.
struct Example {
    name: String,
    code: Vec<u8>,
    folder: PathBuf,
}

impl Example {
    fn text(&self, ending: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.join(format!("{}{ending}", self.name))).ok()
    }

    fn workbench(&self, runtime: &Runtime) -> (Workbench, Case) {
        let cases = Cases::parse(&self.text(".cases.yaml").unwrap()).unwrap();
        let config = cases.config.clone().or_else(|| self.text(".yaml")).unwrap_or_default();
        let first = cases.iter().next().unwrap().1.clone();
        (Workbench::new(runtime, &self.name, &self.code, &config).unwrap(), first)
    }
}

/// The folders in `plugins/` with a decision table.
fn examples() -> Vec<Example> {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").read_dir().unwrap();
    let example = |folder: PathBuf| {
        let name = folder.file_name()?.to_str()?.to_owned();
        let there = folder.join(format!("{name}.cases.yaml")).exists();
        there.then(|| Example { code: built(&name), name, folder })
    };
    let mut examples: Vec<_> = folders.filter_map(|entry| example(entry.unwrap().path())).collect();
    examples.sort_by(|a, b| a.name.cmp(&b.name));
    examples
}

fn built(name: &str) -> Vec<u8> {
    let dir = std::env::var_os("PLUGINS").map(PathBuf::from);
    let file = dir.expect("PLUGINS names the folder that `make plugins` fills").join(format!("{name}.wasm"));
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn runtime(cache: &CompiledCache) -> Runtime {
    Runtime::new(Limits::default(), cache.clone()).unwrap()
}

fn cache() -> (tempfile::TempDir, CompiledCache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = CompiledCache::open(&dir.path().join("compiled")).unwrap();
    (dir, cache)
}

fn host(i: usize) -> String {
    format!("h{i}.example.com")
}

fn rules() -> Vec<Rule> {
    (0..RULES).map(|i| Rule { hostname: host(i), endpoint: TUNNEL.to_owned() }).collect()
}

/// The same in two columns.
fn written() -> String {
    (0..RULES).fold(String::new(), |mut text, i| {
        writeln!(text, "{} {TUNNEL}", host(i)).unwrap();
        text
    })
}
