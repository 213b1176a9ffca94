//! `docs/configuration.md` names every key that the checker knows, and no other.
//!
//! What the checker knows it says itself: each object is given a key that resembles none, and the answer lists the others.

use pointsman::config::{self, Source};
use std::collections::{BTreeMap, BTreeSet};

const STRANGER: &str = "zzzzzzzzzzzzzzzzzzzz";

/// Every object, with a stranger in each mapping; `@` stands for it.
const PROBES: &[&str] = &[
    "@\nlog: {@}\nplugins: {@, limits: {@}}\nservices: [{@, metadata: {@}, listener: {@, metadata: {@}}, handler: {@, type: tcp, metadata: {@}}, \
     forwarder: {@, plugin: {@, type: wasm, path: a.wasm}, selector: {@}, nodes: [{@, filter: {@}, matcher: {@}, metadata: {@}}]}}]\n\
     ingresses: [{@, name: i, plugin: {@, type: wasm, path: a.wasm}, rules: [{@, hostname: h, endpoint: e}]}]\n\
     chains: [{@, name: c, hops: [{@, selector: {@}, plugin: {@, type: wasm, path: a.wasm}, nodes: [{@, dialer: {@}, metadata: {@}, \
     connector: {@, type: tunnel, auth: {@}, metadata: {@}}}]}]}]\n",
    "services: [{addr: ':1', handler: {type: tcp}, forwarder: {nodes: [{@, tls: {@, options: {@}}, http: {@, auth: {@}, rewriteURL: [{@, match: a}]}}]}}]",
    "services: [{addr: ':1', handler: {type: tunnel, plugin: {@, type: wasm, path: a.wasm}, metadata: {@, entrypoints: [{@}]}}}]",
    "services: [{addr: ':1', handler: {type: relay, metadata: {@}}}]",
    "services: [{addr: ':1', handler: {type: tcp, metadata: {sniffing: true}, tls: {@, certificates: [{@}], acme: {@}, options: {@}}}}]",
    "services: [{addr: ':1', handler: {type: whoami, metadata: {@}}}]",
    "services: [{addr: ':1', listener: {type: udp, metadata: {@}}, handler: {type: udp, metadata: {@}}, forwarder: {nodes: [{@, addr: 'a:1'}]}},\
     {addr: ':0', listener: {type: rudp, chain: c, metadata: {@}}, handler: {type: rudp, metadata: {@}}, forwarder: {nodes: [{@, addr: 'a:1'}]}}]\n\
     chains: [{name: c, hops: [{nodes: [{addr: 'a:1', connector: {type: relay}}]}]}]",
    "services: [{addr: ':0', listener: {type: rtcp, chain: c, metadata: {@}}, handler: {type: whoami}, metadata: {@}}]\n\
     chains: [{name: c, hops: [{nodes: [{addr: 'a:1', connector: {type: relay, metadata: {@}}}]}]}]",
    "services: [{addr: ':1', handler: {type: tcp, chain: c}, forwarder: {nodes: [{addr: 'a:1'}]}}]\n\
     chains: [{name: c, hops: [{nodes: [{addr: 'a:1', connector: {type: http, metadata: {@}}}]}]}]",
    "ingresses: [{@, name: i, file: {@}, redis: {@}, http: {@}, plugin: {@, type: grpc, tls: {@, options: {@}}}}]\n\
     authers: [{@, name: a, redis: {@}, http: {@}}, {name: b, plugin: {@, tls: {@, options: {@}}}}]",
    "ingresses: [{@, name: i, file: {@}}]\nauthers: [{@, name: a, auths: [{@}], file: {@}}]\nadmissions: [{@, name: a, file: {@}}]\n\
     services: [{addr: ':1', handler: {type: tunnel, auth: {@}, metadata: {tunnels: [{@, credentials: [{@, password: x}]}]}}}]",
    "tls: {@, options: {@}}\nservices: [{addr: ':1', listener: {type: mwss, tls: {@, options: {@}}, metadata: {@}}, handler: {type: relay}},\
     {addr: ':2', listener: {type: grpc, metadata: {@}}, handler: {type: relay}},\
     {addr: ':3', listener: {type: h2c, metadata: {@}}, handler: {type: relay}}]",
    "services: [{addr: ':1', listener: {type: quic, metadata: {@}}, handler: {type: relay}}]",
    "services: [{addr: ':0', listener: {type: rtcp, chain: c}, handler: {type: whoami}}]\n\
     chains: [{name: c, hops: [{nodes: [{addr: 'a:1', connector: {type: relay}, dialer: {type: mwss, tls: {@, options: {@}}, metadata: {@}}},\
     {addr: 'a:1', connector: {type: relay}, dialer: {type: h2, metadata: {@}}},\
     {addr: 'a:1', connector: {type: relay}, dialer: {type: grpc, metadata: {@}}},\
     {addr: 'a:1', connector: {type: relay}, dialer: {type: quic, metadata: {@}}}]}]}]",
    "services: [{addr: ':1', handler: {type: tcp}, forwarder: {hop: h}}]\n\
     hops: [{@, name: h, plugin: {@, type: wasm, path: a.wasm}, nodes: [{@, addr: 'a:1', metadata: {@}, tls: {@, options: {@}}, http: {@, auth: {@}, rewriteURL: [{@, match: a}]}}]}]",
];

/// The keys of each object by its path, without the places in lists.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for probe in PROBES {
        let text = probe.replace("@\n", &format!("{STRANGER}: x\n")).replace('@', &format!("{STRANGER}: x"));
        let problems = config::load(&[Source { name: "probe".to_owned(), text }]).unwrap_err().0;
        for problem in problems.iter().filter(|problem| problem.message.contains(STRANGER)) {
            let object = problem
                .path
                .strip_suffix(STRANGER)
                .unwrap()
                .trim_end_matches('.')
                .replace(['0', '1', '2', '3'], "");
            let keys = problem.help.strip_prefix("known here: ").unwrap_or_else(|| panic!("{problem}"));
            known.entry(object).or_default().extend(keys.split(", ").map(str::to_owned));
        }
        let strangers = problems.iter().filter(|problem| problem.message.contains(STRANGER)).count();
        assert_eq!(strangers, probe.matches('@').count(), "{probe}: {problems:#?}");
    }
    known
}

/// The keys in the first column of the tables under each heading ``## `object` ``.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string("docs/configuration.md").unwrap();
    let mut documented = BTreeMap::new();
    for part in text.split("\n## ").skip(1) {
        let (heading, body) = part.split_once('\n').unwrap();
        let columns = body.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        let keys = columns.flat_map(|column| column.split(", ").map(|key| key.trim_matches('`').to_owned()));
        let keys: BTreeSet<_> = keys.collect();
        // Objects of the same kind share a section.
        for object in heading.split(", ") {
            let object = object.trim_matches('`').trim_start_matches("the file");
            assert!(documented.insert(object.to_owned(), keys.clone()).is_none(), "{object} stands twice");
        }
    }
    documented
}

#[test]
fn every_key_is_documented() {
    let (known, documented) = (known(), documented());
    for (object, keys) in &known {
        let written = documented.get(object).unwrap_or_else(|| panic!("no section for {object:?}: {keys:?}"));
        let missing: Vec<_> = keys.difference(written).collect();
        let gone: Vec<_> = written.difference(keys).collect();
        assert!(
            missing.is_empty() && gone.is_empty(),
            "{object}: not documented {missing:?}, not known {gone:?}"
        );
    }
    let objects: Vec<_> = documented.keys().filter(|object| !known.contains_key(*object)).collect();
    assert!(objects.is_empty(), "{objects:?}");
}

/// The settings in the README are among those.
#[test]
fn the_readme_names_only_known_keys() {
    let text = std::fs::read_to_string("README.md").unwrap();
    let section = text.split("\n## ").find(|part| part.starts_with("Settings")).unwrap();
    let all: BTreeSet<_> = known().into_values().flatten().collect();
    let rows: Vec<_> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next()).collect();
    assert!(rows.len() >= 15, "{rows:?}");
    for key in rows.iter().flat_map(|row| row.split('`')).filter(|part| part.starts_with(char::is_alphabetic))
    {
        assert!(all.contains(key) || key.starts_with("on entrypoints"), "{key}");
    }
}
