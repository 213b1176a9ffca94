//! The examples: each is loaded, takes its configuration and gives the answers of its decision table.

use super::common_table::node;
use super::{built, compiled};
use pointsman::addr::Host;
use pointsman::plugin::{Allow, Binding, BoundForwarder, Chain, Limits, OnError, Plugin, Runtime, Source};
use pointsman::route::hop::Health;
use pointsman::route::ingress::Table;
use pointsman::route::{Choice, Extra, Forwarder, Ingress, Node, Protocol, Request, Verdict};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// One for each language, the rules of an ingress, and the owners of tunnels.
const EXAMPLES: usize = 9;

#[test]
fn every_example_holds_to_its_decision_table() {
    let runtime = runtime();
    let examples = examples();
    assert!(examples.len() == EXAMPLES, "{examples:?}");
    let wrong: Vec<_> = examples.iter().filter_map(|example| install(&runtime, example).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Go's collector reads the clock and takes memory wherever it happens to run, the host's own calls for memory included.
#[tokio::test]
async fn a_go_guest_goes_on_through_its_collections() {
    let plugin = install(&runtime(), &folder("country")).unwrap();
    let chain = Chain::bound(Binding::new(Arc::clone(&plugin), OnError::Refuse), Table::new(&[]).0);
    for port in 0..60_000 {
        // Each from an address of its own, so that the cache answers none.
        let [a, b] = u16::to_be_bytes(port);
        let request = request(format!("[2001:db8::{a:x}:{b:x}]:4000").parse().unwrap());
        let decision = chain.resolve(&request).wait().await;
        assert!(matches!(decision, Ok(Verdict::Use(_))), "after {port} calls: {decision:?}");
    }
    assert_eq!(plugin.status().counters, [("AT".to_owned(), 60_000)]);
}

/// Another name in its configuration switches; the same one does not, however often instances are made anew.
#[tokio::test]
async fn blue_green_is_switched_by_its_configuration() {
    let limits = Limits { recycle_calls: 1, deadline: Duration::from_secs(1), ..Limits::default() };
    let runtime = Runtime::new(limits, compiled()).unwrap();
    let plugin = Plugin::new(&runtime, "blue-green");
    let forwarder = BoundForwarder::new(Binding::new(Arc::clone(&plugin), OnError::Refuse), Allow::default());
    let (blue, green) = (node("blue", 1, Health::default()), node("green", 1, Health::default()));
    let ill = node("blue", 1, Health::with(0, 1));
    let code = std::fs::read(built("blue-green")).unwrap();
    let configure =
        |config: &str| plugin.install(&Source { code: code.clone(), config: config.to_owned(), cases: None });
    let (forwarder, green) = (&forwarder, &green);
    let live = |blue: &Arc<Node>| {
        let nodes = [Arc::clone(blue), Arc::clone(green)];
        let request = request("203.0.113.5:4000".parse().unwrap());
        async move {
            match forwarder.select(&request, &nodes).wait().await {
                Ok(Verdict::Use(Choice::Candidate(place))) => nodes[place].name.to_string(),
                other => panic!("{other:?}"),
            }
        }
    };
    configure("live: green").unwrap();
    assert_eq!(live(&blue).await, "green");
    configure("# back\r\n\r\nlive: blue # for now\r\n").unwrap();
    assert_eq!(live(&blue).await, "blue");
    assert_eq!(live(&ill).await, "green");
    for _ in 0..5 {
        assert_eq!(live(&blue).await, "green", "blue is back, and not live");
    }
    configure("live: green").unwrap();
    configure("live: blue").unwrap();
    assert_eq!(live(&blue).await, "blue");
    for wrong in ["live", "live: ", "lvie: blue", " live: blue", "live: blue\nx"] {
        assert!(configure(wrong).unwrap_err().to_string().contains("live: NODE"), "{wrong}");
    }
    configure("").unwrap();
    assert_eq!(live(&blue).await, "blue");
}

#[test]
fn tunnel_owners_takes_no_table_with_mistakes() {
    let plugin = Plugin::new(&runtime(), "tunnel-owners");
    let code = std::fs::read(built("tunnel-owners")).unwrap();
    let id = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
    let configure =
        |config: &str| plugin.install(&Source { code: code.clone(), config: config.to_owned(), cases: None });
    for right in
        ["", "tunnels: []", "others: pass", &format!("tunnels: [{{ id: {id}, hostnames: ['*.a'] }}]")]
    {
        configure(right).unwrap();
    }
    let many = ["h"; 65].join(", ");
    for (wrong, told) in [
        ("tunnel: []".to_owned(), "tunnel"),
        ("- x".to_owned(), "expected mapping"),
        ("others: allow".to_owned(), "allow"),
        ("tunnels: [{ id: none }]".to_owned(), "expected a UUID"),
        ("tunnels: [{ users: [ann] }]".to_owned(), "id"),
        (format!("tunnels: [{{ id: {id} }}, {{ id: {} }}]", id.to_uppercase()), "stands twice"),
        (format!("tunnels: [{{ id: {id}, user: ann }}]"), "user"),
        (format!("tunnels: [{{ id: {id}, hostnames: ['*'] }}]"), "no host"),
        (format!("tunnels: [{{ id: {id}, hostnames: ['a.example:80'] }}]"), "no host"),
        (format!("tunnels: [{{ id: {id}, hostnames: [{many}] }}]"), "more than 64"),
    ] {
        let error = configure(&wrong).unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains('\n'), "{wrong}: {error}");
    }
}

/// The default limits, but for the deadline: it is of wall-clock time, and tests run beside each other.
fn runtime() -> Runtime {
    let limits = Limits { deadline: Duration::from_secs(1), instances: 1, ..Limits::default() };
    Runtime::new(limits, compiled()).unwrap()
}

pub(super) fn install(runtime: &Runtime, folder: &Path) -> Result<Arc<Plugin>, String> {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let text = |ending: &str| std::fs::read_to_string(folder.join(format!("{name}{ending}"))).ok();
    let source = Source {
        code: std::fs::read(built(name)).map_err(|e| format!("{name}: {e}"))?,
        config: text(".yaml").unwrap_or_default(),
        cases: text(".cases.yaml"),
    };
    let plugin = Plugin::new(runtime, name);
    plugin.install(&source).map_err(|e| format!("{name}: {e}"))?;
    Ok(plugin)
}

fn request(client: SocketAddr) -> Request<'static> {
    Request {
        hostname: Host::parse("shop.example").unwrap(),
        protocol: Protocol::Tls,
        client,
        service: "web",
        http: None,
        extra: Extra::default(),
    }
}

/// The folders in `plugins/` that hold a decision table.
pub(super) fn examples() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap().path());
    folders
        .filter(|folder| folder.join(folder.file_name().unwrap()).with_extension("cases.yaml").exists())
        .collect()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(name)
}
