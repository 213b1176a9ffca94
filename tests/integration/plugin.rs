//! Plugins from files to answers, with real components.

use pointsman::addr::Host;
use pointsman::plugin::{Binding, Chain, CompiledCache, Limits, OnError, Plugin, Runtime, Source};
use pointsman::route::ingress::{Rule, Table};
use pointsman::route::{Decision, Endpoint, Extra, Ingress, Protocol, Request, Verdict};
use std::sync::Arc;

fn guest(name: &str) -> Vec<u8> {
    wat::parse_file(format!("tests/data/guests/{name}.wat")).unwrap()
}

fn runtime() -> Runtime {
    Runtime::new(Limits::default(), CompiledCache::default()).unwrap()
}

fn plugin(runtime: &Runtime, name: &str) -> Arc<Plugin> {
    let plugin = Plugin::new(runtime, name);
    plugin.install(&Source { code: guest(name), ..Source::default() }).unwrap();
    plugin
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

async fn ask(ingress: &dyn Ingress, host: &str) -> Decision<Endpoint> {
    ingress.resolve(&request(host)).wait().await
}

#[tokio::test]
async fn a_core_module_decides() {
    let runtime = runtime();
    let rules = [Rule {
        hostname: "p.example".to_owned(),
        endpoint: "$11111111-2222-4333-8444-555555555555".to_owned(),
    }];
    let chain = Chain::bound(Binding::new(plugin(&runtime, "fixed"), OnError::Refuse), Table::new(&rules).0);
    let Ok(Verdict::Use(endpoint)) = ask(&chain, "a.example").await else { panic!("no tunnel") };
    assert_eq!(endpoint.tunnel.to_string(), "4d21094e-b74c-4916-86c1-d9fa36ea677b");
    let Ok(Verdict::Use(endpoint)) = ask(&chain, "p.example").await else { panic!("no rule") };
    assert!(endpoint.private);
    let Ok(Verdict::Refuse(refusal)) = ask(&chain, "r.example").await else { panic!("not refused") };
    assert_eq!((refusal.status, refusal.reason.as_str()), (451, "not today"));
    assert!(ask(&chain, "e.example").await.unwrap_err().to_string().contains("not today"));
    assert!(ask(&chain, "t.example").await.unwrap_err().to_string().contains("trap"));
    assert!(ask(&chain, "l.example").await.unwrap_err().to_string().contains("plugins.limits.deadline"));
    assert!(matches!(ask(&chain, "a.example").await, Ok(Verdict::Use(_))));
}
