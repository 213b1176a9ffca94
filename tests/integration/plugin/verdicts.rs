//! Every verdict of both kinds, and what is made of it.

use super::*;
use pointsman::plugin::{Allow, BoundForwarder};
use pointsman::route::{Choice, Forwarder};

#[tokio::test]
async fn every_verdict_of_an_ingress() {
    let plugin = plugin(&runtime(), "fixed");
    let rules = rules(&[("p.example", OTHER)]);
    let chain = Chain::bound(Binding::new(plugin, OnError::Refuse), rules);
    for (host, expected) in [
        ("a.example", "tunnel"),
        ("x.example", "tunnel"),
        ("p.example", "other"),
        ("pass.example", "pass"),
        ("r.example", "451 not today"),
        ("e.example", "error: plugin \"fixed\": not today"),
    ] {
        assert_eq!(answer(&chain, host).await, expected, "{host}");
    }
    let trap = answer(&chain, "t.example").await;
    assert!(trap.starts_with("error: plugin \"fixed\": trap: ") && trap.contains("unreachable"), "{trap}");
    let overrun = answer(&chain, "l.example").await;
    assert!(overrun.ends_with("no answer within 50ms (plugins.limits.deadline)"), "{overrun}");
    assert_eq!(answer(&chain, "a.example").await, "tunnel");
}

/// A rule that says private is stronger than a plugin that does not know of it, and weaker than one that says so.
#[tokio::test]
async fn private_rules_stay_private() {
    let plugin = plugin(&runtime(), "fixed");
    let private_host =
        rules(&[("secret.example", &format!("${OTHER}")), ("x.example", &format!("${OTHER}"))]);
    let chain = Chain::bound(Binding::new(Arc::clone(&plugin), OnError::Refuse), private_host);
    assert_eq!(answer(&chain, "secret.example").await, "private tunnel");
    assert_eq!(answer(&chain, "a.example").await, "tunnel");
    assert_eq!(answer(&chain, "x.example").await, "tunnel");
    let private_tunnel = rules(&[("other.example", &format!("${TUNNEL}"))]);
    let chain = Chain::bound(Binding::new(Arc::clone(&plugin), OnError::Refuse), private_tunnel);
    assert_eq!(answer(&chain, "a.example").await, "private tunnel");
    assert_eq!(answer(&chain, "x.example").await, "tunnel");
    // Kept answers are judged by the rules like new ones.
    assert_eq!(answer(&chain, "c.example").await, "private tunnel");
    assert_eq!(answer(&chain, "c.example").await, "private tunnel");
    assert_eq!(plugin.status().counts.cache_hits, 1);
    let both = rules(&[("other.example", &format!("${TUNNEL}")), ("public.example", TUNNEL)]);
    let chain = Chain::bound(Binding::new(plugin, OnError::Refuse), both);
    assert_eq!(answer(&chain, "a.example").await, "tunnel");
}

fn nodes() -> Vec<Arc<Node>> {
    vec![node("one", "10.0.0.1:80", &[("Zone", "eu")]), node("two", "two.example:81", &[])]
}

async fn select(forwarder: &BoundForwarder, host: &str, nodes: &[Arc<Node>]) -> String {
    match forwarder.select(&request(host), nodes).wait().await {
        Ok(Verdict::Pass) => "pass".to_owned(),
        Ok(Verdict::Use(Choice::Candidate(index))) => format!("node {index}"),
        Ok(Verdict::Use(Choice::Address(address))) => address.to_string(),
        Ok(Verdict::Refuse(refusal)) => format!("{} {}", refusal.status, refusal.reason).trim().to_owned(),
        Err(error) => format!("error: {error}"),
    }
}

fn forwarder(plugin: &Arc<Plugin>, on_error: OnError) -> BoundForwarder {
    let allow = Allow::parse(["10.0.0.0/8"]).unwrap();
    BoundForwarder::new(Binding::new(Arc::clone(plugin), on_error), allow)
}

#[tokio::test]
async fn every_verdict_of_a_forwarder() {
    let plugin = plugin(&runtime(), "picks");
    let refuses = forwarder(&plugin, OnError::Refuse);
    for (host, expected) in [
        ("0.example", "node 0"),
        ("1.example", "node 1"),
        ("p.example", "pass"),
        ("r.example", "451 no"),
        ("a.example", "10.1.2.3:80"),
        ("b.example", "error: plugin \"picks\": address 192.0.2.9:80 is not in allowAddresses"),
        ("2.example", "error: plugin \"picks\": node 2 of 2 (counted from 0)"),
        ("n.example", "407 one"),
        ("d.example", "401 two.example:81"),
        ("l.example", "401 eu"),
        ("f.example", "400"),
        ("u.example", "400"),
    ] {
        assert_eq!(select(&refuses, host, &nodes()).await, expected, "{host}");
    }
    let bad = select(&refuses, "x.example", &nodes()).await;
    assert!(bad.starts_with("error: plugin \"picks\": address \"no address\" is none"), "{bad}");
    let overrun = select(&refuses, "i.example", &nodes()).await;
    assert!(overrun.contains("plugins.limits.deadline"), "{overrun}");
    // On probation the answers come from other threads, and are the same.
    assert_eq!(select(&refuses, "1.example", &nodes()).await, "node 1");
    assert_eq!(select(&refuses, "d.example", &nodes()).await, "401 two.example:81");
    let passes = forwarder(&plugin, OnError::Next);
    for host in ["b.example", "2.example", "x.example", "i.example"] {
        assert_eq!(select(&passes, host, &nodes()).await, "pass", "{host}");
    }
}

#[tokio::test]
async fn a_plugin_asked_for_what_it_does_not_decide_fails() {
    let runtime = runtime();
    let (picks, fixed) = (plugin(&runtime, "picks"), plugin(&runtime, "fixed"));
    let error = answer(&bound(&picks, OnError::Refuse), "a.example").await;
    assert_eq!(error, "error: plugin \"picks\": it decides no ingress");
    let error = select(&forwarder(&fixed, OnError::Refuse), "a.example", &nodes()).await;
    assert_eq!(error, "error: plugin \"fixed\": it decides no forwarder");
}

/// A kept node is given again only while it is a candidate.
#[tokio::test]
async fn a_kept_node_that_is_gone_is_not_chosen() {
    let plugin = plugin(&runtime(), "picks");
    let forwarder = forwarder(&plugin, OnError::Refuse);
    let nodes = nodes();
    assert_eq!(select(&forwarder, "k.example", &nodes).await, "node 0");
    let turned = [Arc::clone(&nodes[1]), Arc::clone(&nodes[0])];
    assert_eq!(select(&forwarder, "k.example", &turned).await, "node 1");
    assert_eq!((plugin.status().counts.calls, plugin.status().counts.cache_hits), (1, 1));
    assert_eq!(select(&forwarder, "k.example", &nodes[1..]).await, "node 0");
    assert_eq!((plugin.status().counts.calls, plugin.status().counts.cache_hits), (2, 1));
}
