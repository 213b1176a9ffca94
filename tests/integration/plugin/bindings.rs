//! Plugins bound to an ingress: failures, order, names without a file, configurations of a binding.

use super::*;
use std::fs;

#[tokio::test]
async fn a_failure_goes_the_way_of_the_binding() {
    let plugin = plugin(&runtime(), "fixed");
    let own = || rules(&[("e.example", OTHER), ("t.example", OTHER), ("l.example", OTHER)]);
    let next = Chain::bound(Binding::new(Arc::clone(&plugin), OnError::Next), own());
    let refuse = Chain::bound(Binding::new(Arc::clone(&plugin), OnError::Refuse), own());
    // The first trap puts the plugin on probation: the later answers come from other threads.
    for host in ["e.example", "t.example", "l.example", "t.example", "e.example"] {
        assert_eq!(answer(&next, host).await, "other", "{host}");
        assert!(answer(&refuse, host).await.starts_with("error: plugin \"fixed\": "), "{host}");
    }
    assert_eq!(plugin.status().counts.errors, 10);
}

/// The version before is asked, by the same thread and by others.
#[tokio::test]
async fn the_last_good_version_answers_for_one_that_fails() {
    let (good, bad) = (guest("fixed"), guest("bad"));
    let plugin = Plugin::new(&runtime(), "p");
    let chain = bound(&plugin, OnError::LastGood);
    assert!(answer(&chain, "a.example").await.contains("not loaded"));
    plugin.install(&source(good)).unwrap();
    assert!(answer(&chain, "e.example").await.contains("not today"), "there is no version before");
    assert_eq!(answer(&chain, "a.example").await, "tunnel");
    plugin.install(&source(bad.clone())).unwrap();
    for _ in 0..3 {
        // `i` is no UUID to the new version and nothing special to the old one; so are `m` and `s`.
        assert_eq!(answer(&chain, "i.example").await, "tunnel");
        assert_eq!(answer(&chain, "s.example").await, "tunnel");
    }
    assert!(answer(&chain, "l.example").await.contains("no answer within"), "both fail");
    // A version that never answered does not become the last good one.
    let never = Plugin::new(&runtime(), "q");
    let chain = bound(&never, OnError::LastGood);
    never.install(&source(guest("fixed"))).unwrap();
    assert_eq!(answer(&chain, "a.example").await, "tunnel");
    never.install(&source(bad.clone())).unwrap();
    assert_eq!(answer(&chain, "s.example").await, "tunnel");
    never.install(&source(marked(&bad, "2"))).unwrap();
    assert_eq!(answer(&chain, "s.example").await, "tunnel");
    never.remove();
    assert!(
        answer(&chain, "s.example").await.contains("not loaded"),
        "its author has taken all of it out of use"
    );
}

#[tokio::test]
async fn a_folders_plugins_are_asked_in_file_name_order_before_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    let fixed = guest("fixed");
    fs::write(dir.path().join("20-tunnel.wasm"), &fixed).unwrap();
    fs::write(dir.path().join("10-tells.wasm"), guest("tells")).unwrap();
    fs::write(dir.path().join("30-picks.wasm"), guest("picks")).unwrap();
    let runtime = runtime();
    let folder = folder(&runtime, dir.path());
    folder.watch().wait();
    let chain = Chain::folder(Arc::clone(&folder), rules(&[("p.example", OTHER)]));
    assert_eq!(answer(&chain, "a.example").await, "400", "10-tells decides");
    assert_eq!(folder.ingress().len(), 2, "a forwarder plugin is not asked for a tunnel");
    fs::remove_file(dir.path().join("10-tells.wasm")).unwrap();
    eventually("20-tunnel decides", async || (answer(&chain, "a.example").await == "tunnel").then_some(()))
        .await;
    assert_eq!(answer(&chain, "p.example").await, "other", "it passes, so the rules decide");
    assert_eq!(answer(&chain, "e.example").await, "pass", "it fails, and nobody else has an opinion");
    fs::write(dir.path().join("20.wasm"), guest("tells")).unwrap();
    eventually("20 is in use", async || (folder.ingress().len() == 2).then_some(())).await;
    assert_eq!(answer(&chain, "a.example").await, "tunnel", "20-tunnel.wasm lies before 20.wasm");
}

#[tokio::test]
async fn a_plugin_can_be_bound_before_its_file_exists() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let folder = folder(&runtime, dir.path());
    let plugin = folder.plugin("late", None);
    let refuse = bound(&plugin, OnError::Refuse);
    let next = Chain::bound(Binding::new(plugin, OnError::Next), rules(&[("a.example", OTHER)]));
    folder.watch().wait();
    assert!(answer(&refuse, "a.example").await.contains("plugin \"late\": not loaded"));
    assert_eq!(answer(&next, "a.example").await, "other");
    fs::write(dir.path().join("late.wasm"), guest("fixed")).unwrap();
    eventually("it is in use", async || (answer(&refuse, "a.example").await == "tunnel").then_some(())).await;
    assert_eq!(answer(&next, "a.example").await, "tunnel");
}

#[tokio::test]
async fn a_configuration_of_a_binding_stands_beside_that_of_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("fixed.wasm"), guest("fixed")).unwrap();
    fs::write(dir.path().join("fixed.yaml"), "bad").unwrap();
    let runtime = runtime();
    let folder = folder(&runtime, dir.path());
    let (own, of_folder) = (folder.plugin("fixed", Some("good")), folder.plugin("fixed", None));
    folder.watch().wait();
    assert_eq!(answer(&bound(&own, OnError::Refuse), "a.example").await, "tunnel");
    assert!(answer(&bound(&of_folder, OnError::Refuse), "a.example").await.contains("not loaded"));
    assert_eq!(of_folder.status().last_error.unwrap(), "configure: bad configuration");
    assert_eq!(folder.ingress().len(), 0, "a drop-in is configured by its file");
    fs::write(dir.path().join("fixed.yaml"), "good").unwrap();
    eventually("the file's configuration is taken", async || (folder.ingress().len() == 1).then_some(()))
        .await;
}
