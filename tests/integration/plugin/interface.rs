//! What a guest is told when it asks: request, clock, counters, store.

use super::*;
use pointsman::route::HttpParts;

#[derive(Debug, Clone)]
struct Http(Vec<(&'static str, &'static [u8])>);

impl HttpParts for Http {
    fn method(&self) -> &str {
        "POST"
    }
    fn path(&self) -> &str {
        "/a/b"
    }
    fn query(&self) -> Option<&str> {
        Some("q=1")
    }
    fn field(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v)
    }
    fn all_fields<'a>(&'a self, name: &'a str) -> Box<dyn Iterator<Item = &'a [u8]> + 'a> {
        Box::new(self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v))
    }
    fn names<'a>(&'a self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        Box::new(self.0.iter().map(|(name, _)| *name))
    }
    fn shared(&self) -> Arc<dyn HttpParts> {
        Arc::new(self.clone())
    }
}

async fn tell(chain: &Chain, http: &dyn HttpParts, host: &str) -> String {
    let alpn: Arc<[Box<str>]> = Arc::from(["h2".into(), "http/1.1".into()]);
    let metadata: Arc<[(Box<str>, Box<str>)]> = Arc::from([("Region".into(), "north".into())]);
    let extra = Extra { alpn: Some(alpn), metadata: Some(metadata), port: 0 };
    let request = Request { protocol: Protocol::Http1, http: Some(http), extra, ..request(host) };
    in_short(chain.resolve(&request).wait().await)
}

#[tokio::test]
async fn the_request_is_told_when_asked_for() {
    let plugin = plugin(&runtime(), "tells");
    let chain = bound(&plugin, OnError::Refuse);
    let http = Http(vec![
        ("cookie", b"a=1"),
        ("x-one", b"caf\xe9"),
        ("x-one", b"two"),
        ("cookie", b"b=2; sid=\"me\""),
    ]);
    for (host, told) in [
        ("h", "401 caf\u{fffd}"),
        ("k", "401 me"),
        ("m", "402 POST"),
        ("p", "402 /a/b"),
        ("q", "401 q=1"),
        ("a", "402 http/1.1"),
        ("d", "401 north"),
        ("n", "400"),
        ("i", "401 192.0.2.1"),
        ("other", "499 web"),
        ("t", "401"),
        ("r", "401"),
    ] {
        assert_eq!(tell(&chain, &http, host).await, told, "{host}");
    }
    assert_eq!(tell(&chain, &Http(Vec::new()), "h").await, "400");
    // Nothing of an earlier request is left.
    for (host, told) in
        [("h", "400"), ("k", "400"), ("m", "402"), ("p", "402"), ("q", "400"), ("a", "400"), ("d", "400")]
    {
        assert_eq!(answer(&chain, host).await, told, "{host}");
    }
    assert_eq!(answer(&chain, "i").await, "403 192.0.2.1");
}

#[tokio::test]
async fn an_address_of_either_family_is_told_in_its_shortest_form() {
    let chain = bound(&plugin(&runtime(), "tells"), OnError::Refuse);
    for (client, told) in [("[::ffff:192.0.2.7]:1", "403 192.0.2.7"), ("[2001:db8::1]:1", "403 2001:db8::1")]
    {
        let request = Request { client: client.parse().unwrap(), ..request("i") };
        assert_eq!(in_short(chain.resolve(&request).wait().await), told);
    }
}

/// Counters and the store are one for all instances, and stay when the version changes.
#[tokio::test]
async fn what_a_plugin_remembers_survives_a_swap() {
    let runtime = runtime_with(Limits { recycle_calls: 2, ..Limits::default() });
    let plugin = plugin(&runtime, "tells");
    let chain = bound(&plugin, OnError::Refuse);
    assert_eq!(answer(&chain, "c").await, "401");
    assert_eq!(answer(&chain, "ga").await, "400");
    assert_eq!(answer(&chain, "sa.value").await, "400");
    assert_eq!(answer(&chain, "ga").await, "401 sa.value");
    assert_eq!(answer(&chain, "wa.again").await, "403", "compare-and-set of what is there has changed");
    assert_eq!(answer(&chain, "wb.new").await, "400");
    plugin.install(&source(marked(&guest("tells"), "2"))).unwrap();
    assert_eq!(answer(&chain, "ga").await, "401 sa.value");
    assert_eq!(answer(&chain, "gb").await, "401 wb.new");
    assert_eq!(answer(&chain, "xa").await, "401");
    assert_eq!(answer(&chain, "xa").await, "400");
    assert_eq!(answer(&chain, "ga").await, "400");
    assert_eq!(answer(&chain, "z").await, "401", "too large");
    assert_eq!(answer(&chain, "c").await, "402");
    assert_eq!(plugin.status().counters, [("seen".to_owned(), 2)]);
    let other = Plugin::new(&runtime, "other");
    other.install(&source(guest("tells"))).unwrap();
    assert_eq!(answer(&bound(&other, OnError::Refuse), "gb").await, "400", "a store of its own");
}
