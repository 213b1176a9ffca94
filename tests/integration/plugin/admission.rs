//! Who may open a tunnel: what the guest is told, every verdict, failures and the order of a folder.

use super::*;
use pointsman::plugin::BoundAdmission;
use pointsman::route::{Admission, Hostnames, Opening};
use std::fs;

fn door(plugin: &Arc<Plugin>, on_error: OnError) -> BoundAdmission {
    BoundAdmission::bound(Binding::new(Arc::clone(plugin), on_error))
}

fn opening(host: &str) -> Opening {
    let metadata: Arc<[(Box<str>, Box<str>)]> = Arc::from([("Region".into(), "north".into())]);
    Opening {
        service: "server".into(),
        tunnel: TUNNEL.parse().unwrap(),
        user: "ann".into(),
        hostname: Host::parse(host).unwrap(),
        client: "192.0.2.1:4000".parse().unwrap(),
        udp: false,
        extra: Extra { metadata: Some(metadata), ..Extra::default() },
    }
}

async fn admit(door: &BoundAdmission, opening: Opening) -> String {
    match door.admit(Arc::new(opening)).await {
        Ok(Verdict::Pass) => "pass".to_owned(),
        Ok(Verdict::Use(names)) => allowed(&names),
        Ok(Verdict::Refuse(refusal)) => refusal.reason,
        Err(error) => format!("error: {error}"),
    }
}

fn allowed(names: &Hostnames) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    format!("allow {}", names.join(" ")).trim().to_owned()
}

async fn answer_to(door: &BoundAdmission, host: &str) -> String {
    admit(door, opening(host)).await
}

#[tokio::test]
async fn the_guest_is_told_who_asks_for_what_and_its_verdict_counts() {
    let plugin = plugin(&runtime(), "admits");
    let door = door(&plugin, OnError::Refuse);
    for (host, expected) in [
        ("p.example", "pass"),
        ("x.example", "allow"),
        ("", "allow"),
        ("n.example", "allow a.example *.b.example"),
        ("d.example", "plugin \"admits\": not yours"),
        ("u.example", "plugin \"admits\": ann"),
        ("i.example", "plugin \"admits\": 4d21094e-b74c-4916-86c1-d9fa36ea677b"),
        ("k.example", "plugin \"admits\": 192.0.2.1"),
        ("s.example", "plugin \"admits\": server"),
        ("f.example", "plugin \"admits\": tcp"),
        ("m.example", "plugin \"admits\": north"),
    ] {
        assert_eq!(answer_to(&door, host).await, expected, "{host}");
    }
    let udp = Opening { udp: true, client: "[::ffff:192.0.2.7]:1".parse().unwrap(), ..opening("f") };
    assert_eq!(admit(&door, udp.clone()).await, "plugin \"admits\": udp");
    let mapped = Opening { hostname: Host::parse("k").unwrap(), ..udp };
    assert_eq!(admit(&door, mapped).await, "plugin \"admits\": 192.0.2.7");
    assert_eq!(plugin.status().kinds, ["admission"]);
}

#[tokio::test]
async fn a_failure_refuses_or_goes_on_as_bound() {
    let plugin = plugin(&runtime(), "admits");
    let (refuse, next) = (door(&plugin, OnError::Refuse), door(&plugin, OnError::Next));
    // The first trap puts the tunnel on probation: later answers come from other threads.
    for (host, told) in [
        ("e.example", "not yours"),
        ("t.example", "trap"),
        ("l.example", "no answer within"),
        ("t.example", "trap"),
        ("b.example", "\"*\" is no host"),
    ] {
        let error = answer_to(&refuse, host).await;
        assert!(error.starts_with("error: plugin \"admits\": ") && error.contains(told), "{host}: {error}");
        assert_eq!(answer_to(&next, host).await, "pass", "{host}");
    }
    assert_eq!(answer_to(&refuse, "x.example").await, "allow", "and it goes on");
    assert_eq!(plugin.status().counts.errors, 10);
}

#[tokio::test]
async fn the_last_good_version_is_asked_where_that_is_wanted() {
    let runtime = runtime();
    let plugin = Plugin::new(&runtime, "p");
    let door = door(&plugin, OnError::LastGood);
    assert!(answer_to(&door, "x.example").await.contains("not loaded"));
    plugin.install(&Source { config: "n".to_owned(), ..source(guest("admits")) }).unwrap();
    assert!(answer_to(&door, "t.example").await.contains("not yours"), "all that is shut denies");
    plugin.install(&source(guest("admits"))).unwrap();
    for _ in 0..2 {
        assert!(answer_to(&door, "t.example").await.contains("not yours"), "the version before answers");
    }
    assert_eq!(answer_to(&door, "x.example").await, "allow");
    // One of another kind has no answer to give.
    plugin.install(&source(guest("fixed"))).unwrap();
    assert_eq!(answer_to(&door, "x.example").await, "allow");
    let refuse = self::door(&plugin, OnError::Refuse);
    assert!(answer_to(&refuse, "x.example").await.contains("it decides no admission"));
}

#[tokio::test]
async fn an_answer_is_given_again_as_the_guest_allows() {
    let plugin = plugin(&runtime(), "admits");
    let door = door(&plugin, OnError::Refuse);
    for _ in 0..3 {
        assert_eq!(answer_to(&door, "c.example").await, "allow");
    }
    assert_eq!(plugin.status().counts.cache_hits, 2);
    let other = Opening { client: "192.0.2.9:1".parse().unwrap(), ..opening("c.example") };
    assert_eq!(admit(&door, other).await, "allow");
    assert_eq!(admit(&door, Opening { user: "bob".into(), ..opening("c.example") }).await, "allow");
    assert_eq!(plugin.status().counts.cache_hits, 2, "another client, another user");
    // A new version is asked anew.
    plugin.install(&Source { config: "n".to_owned(), ..source(guest("admits")) }).unwrap();
    assert!(answer_to(&door, "c.example").await.contains("not yours"));
}

/// Without a binding; a plugin that fails keeps the client out, as one that stands in the way and does not work.
#[tokio::test]
async fn a_folders_plugins_are_asked_in_file_name_order() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let folder = folder(&runtime, dir.path());
    folder.watch().wait();
    let door = BoundAdmission::folder(Arc::clone(&folder));
    assert_eq!(answer_to(&door, "x.example").await, "pass", "there is none");
    fs::write(dir.path().join("20-open.wasm"), guest("admits")).unwrap();
    fs::write(dir.path().join("10-fixed.wasm"), guest("fixed")).unwrap();
    eventually("20-open decides", async || (answer_to(&door, "x.example").await == "allow").then_some(()))
        .await;
    assert_eq!(folder.admission().len(), 1, "an ingress plugin is not asked");
    fs::write(dir.path().join("10-shut.yaml"), "n").unwrap();
    fs::write(dir.path().join("10-shut.wasm"), guest("admits")).unwrap();
    let shut = "plugin \"10-shut\": not yours";
    eventually("10-shut decides", async || (answer_to(&door, "x.example").await == shut).then_some(())).await;
    assert_eq!(answer_to(&door, "p.example").await, "pass", "neither has an opinion");
    fs::write(dir.path().join("10-shut.yaml"), "").unwrap();
    let error = "error: plugin \"10-shut\": ";
    eventually("10-shut fails", async || {
        answer_to(&door, "e.example").await.starts_with(error).then_some(())
    })
    .await;
}
