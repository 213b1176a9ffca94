//! Answers that may be given again.

use super::*;

#[tokio::test]
async fn a_kept_answer_costs_no_call_until_the_version_changes() {
    let plugin = plugin(&runtime(), "fixed");
    let chain = bound(&plugin, OnError::Refuse);
    let counts = || (plugin.status().counts.calls, plugin.status().counts.cache_hits);
    for _ in 0..5 {
        assert_eq!(answer(&chain, "c.example").await, "tunnel");
    }
    assert_eq!(counts(), (1, 4));
    assert_eq!(answer(&chain, "c2.example").await, "tunnel");
    assert_eq!(counts(), (2, 4));
    // Another service or protocol is another question.
    let other = Request { protocol: Protocol::Unknown, ..request("c.example") };
    chain.resolve(&other).wait().await.unwrap();
    assert_eq!(counts(), (3, 4));
    let client = Request { client: "198.51.100.1:1".parse().unwrap(), ..request("c.example") };
    chain.resolve(&client).wait().await.unwrap();
    assert_eq!(counts(), (3, 5), "it depends on no client");
    plugin.install(&source(marked(&guest("fixed"), "2"))).unwrap();
    assert_eq!(answer(&chain, "c.example").await, "tunnel");
    assert_eq!(counts(), (4, 5), "a swap begins anew");
    plugin.install(&Source { config: "other".to_owned(), ..source(marked(&guest("fixed"), "2")) }).unwrap();
    assert_eq!(answer(&chain, "c.example").await, "tunnel");
    assert_eq!(counts(), (5, 5), "so does another configuration");
}

#[tokio::test]
async fn a_failing_plugin_still_gives_kept_answers() {
    let plugin = plugin(&runtime(), "fixed");
    let chain = bound(&plugin, OnError::Refuse);
    assert_eq!(answer(&chain, "c.example").await, "tunnel");
    assert!(answer(&chain, "t.example").await.contains("trap"));
    assert!(matches!(
        chain.resolve(&request("c.example")),
        pointsman::route::Answer::Now(Ok(Verdict::Use(_)))
    ));
}
