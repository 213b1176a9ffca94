//! Plugins from files to answers, with real components.

mod admission;
mod bad;
mod bindings;
mod decisions;
mod folder;
mod interface;
mod limits;
mod verdicts;

use pointsman::addr::{Host, HostPort};
use pointsman::plugin::{
    Binding, Chain, CompiledCache, Folder, FolderSettings, Limits, OnError, Plugin, Runtime, Source,
};
use pointsman::route::hop::Health;
use pointsman::route::ingress::{Rule, Table};
use pointsman::route::{Decision, Endpoint, Extra, Ingress, Node, Protocol, Request, Verdict};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// The tunnel that the guests name.
const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
/// Another, for rules.
const OTHER: &str = "11111111-2222-4333-8444-555555555555";

fn guest(name: &str) -> Vec<u8> {
    wat::parse_file(format!("tests/data/guests/{name}.wat")).unwrap()
}

/// The same plugin with other bytes, and with this text in them.
fn marked(code: &[u8], text: &str) -> Vec<u8> {
    let mut marked = code.to_vec();
    let length = u8::try_from(text.len() + 2).unwrap();
    marked.extend([0, length, 1, b'm']);
    marked.extend_from_slice(text.as_bytes());
    marked
}

fn source(code: Vec<u8>) -> Source {
    Source { code, ..Source::default() }
}

fn runtime() -> Runtime {
    runtime_with(Limits::default())
}

/// One whose deadline is met on a busy machine too, where the deadline is not what is tested.
fn runtime_with(limits: Limits) -> Runtime {
    let patient = Limits { deadline: limits.deadline.max(Duration::from_millis(50)), ..limits };
    Runtime::new(patient, CompiledCache::default()).unwrap()
}

fn plugin(runtime: &Runtime, name: &str) -> Arc<Plugin> {
    let plugin = Plugin::new(runtime, name);
    plugin.install(&source(guest(name))).unwrap();
    plugin
}

fn rules(rules: &[(&str, &str)]) -> Table {
    let rule = |(host, to): &(&str, &str)| Rule { hostname: (*host).to_owned(), endpoint: (*to).to_owned() };
    Table::new(&rules.iter().map(rule).collect::<Vec<_>>()).0
}

fn bound(plugin: &Arc<Plugin>, on_error: OnError) -> Chain {
    Chain::bound(Binding::new(Arc::clone(plugin), on_error), rules(&[]))
}

fn request(host: &str) -> Request<'static> {
    Request {
        hostname: Host::parse(host).unwrap(),
        protocol: Protocol::Tls,
        client: "192.0.2.1:4000".parse().unwrap(),
        service: "web",
        http: None,
        extra: Extra::default(),
    }
}

fn node(name: &str, addr: &str, labels: &[(&str, &str)]) -> Arc<Node> {
    Arc::new(Node {
        place: None,
        name: name.into(),
        addr: Some(HostPort::parse(addr, 0).unwrap()),
        weight: 7,
        backup: false,
        condition: "*".into(),
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
        labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        health: Health::default(),
    })
}

async fn ask(ingress: &dyn Ingress, host: &str) -> Decision<Endpoint> {
    ingress.resolve(&request(host)).wait().await
}

/// The answer in one line: `tunnel`, `other` or `private ...`, `pass`, the status of a refusal with its reason, or the error.
async fn answer(ingress: &dyn Ingress, host: &str) -> String {
    in_short(ask(ingress, host).await)
}

fn in_short(decision: Decision<Endpoint>) -> String {
    match decision {
        Ok(Verdict::Pass) => "pass".to_owned(),
        Ok(Verdict::Use(endpoint)) => {
            let name = if endpoint.tunnel.to_string() == TUNNEL { "tunnel" } else { "other" };
            if endpoint.private { format!("private {name}") } else { name.to_owned() }
        }
        Ok(Verdict::Refuse(refusal)) => format!("{} {}", refusal.status, refusal.reason).trim().to_owned(),
        Err(error) => format!("error: {error}"),
    }
}

/// Looks again and again until there is something.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is logged meanwhile on this thread.
fn logged<T>(run: impl FnOnce() -> T) -> (T, String) {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let result = tracing::subscriber::with_default(subscriber, run);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (result, text)
}

fn folder(runtime: &Runtime, dir: &Path) -> Arc<Folder> {
    Folder::new(runtime, FolderSettings::new(dir.to_owned()))
}
