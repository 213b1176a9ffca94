//! `docs/configuration.md` names every key that the checker knows, and no other.
//!
//! What the checker knows it says itself: each object is given a key that resembles none, and the answer lists the others.

use pointsman::config::{self, Problem, Source};
use regex::Regex;
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

type Keys = BTreeMap<String, BTreeSet<String>>;

/// What is said about a probe whose mark of that number is something else than a stranger.
fn problems(probe: &str, number: usize, other: &str) -> Vec<Problem> {
    let stranger = &*format!("{STRANGER}: x");
    let mut parts = probe.split('@');
    let mut text = parts.next().unwrap().to_owned();
    for (mark, part) in parts.enumerate() {
        text += if mark == number { other } else { stranger };
        text += part;
    }
    config::load(&[Source { name: "probe".to_owned(), text }]).unwrap_err().0
}

/// What the checker says of the stranger in each mapping of a probe, in order.
fn strangers(probe: &str) -> Vec<Problem> {
    let mut problems = problems(probe, usize::MAX, "");
    problems.retain(|problem| problem.message.contains(STRANGER));
    assert_eq!(problems.len(), probe.matches('@').count(), "{probe}: {problems:#?}");
    problems
}

/// The path of the object that a stranger is in, and the same without the places in lists.
fn object(stranger: &Problem) -> (&str, String) {
    let path = stranger.path.strip_suffix(STRANGER).unwrap();
    (path, path.trim_end_matches('.').replace(['0', '1', '2', '3'], ""))
}

/// The keys of each object that have a meaning, or are left aside.
fn known() -> Keys {
    let mut known = Keys::new();
    for problem in PROBES.iter().flat_map(|probe| strangers(probe)) {
        let keys = problem.help.strip_prefix("known here: ").unwrap_or_else(|| panic!("{problem}"));
        known.entry(object(&problem).1).or_default().extend(keys.split(", ").map(str::to_owned));
    }
    known
}

/// The keys that the sources name where an object ends: among them are all that are refused, of which nobody is told otherwise.
fn named() -> BTreeSet<String> {
    let ends = Regex::new(r"(?:NEEDED\w*: &\[&str\] =|\.finish\()([^;]*);").unwrap();
    let word = Regex::new(r#""([\w.]+)""#).unwrap();
    let texts =
        std::fs::read_dir("src/config").unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()));
    let mut named = BTreeSet::new();
    for text in texts.filter_map(Result::ok) {
        let lists = ends.captures_iter(&text).map(|found| found[1].to_owned());
        lists.for_each(|list| named.extend(word.captures_iter(&list).map(|found| found[1].to_owned())));
    }
    assert!(["bodySize", "netns", "chainGroup"].iter().all(|key| named.contains(*key)), "{named:?}");
    named
}

/// The keys that each object refuses because they are not supported, among those that the sources and the documentation name.
fn refused(known: &Keys, documented: &Keys, refusals: &Keys) -> Keys {
    let named = named();
    let anywhere: BTreeSet<_> = refusals.values().flatten().chain(&named).collect();
    let mut refused = Keys::new();
    for probe in PROBES {
        for (number, stranger) in strangers(probe).iter().enumerate() {
            let (path, object) = object(stranger);
            let mut keys: BTreeSet<_> = documented[&object].iter().chain(anywhere.iter().copied()).collect();
            keys.retain(|key| !known[&object].contains(*key));
            let asked: Vec<_> = keys.iter().map(|key| format!("{key}: x")).collect();
            let between = if probe.starts_with("@\n") && number == 0 { "\n" } else { ", " };
            let said = problems(probe, number, &asked.join(between));
            let here = said.iter().filter(|problem| problem.message.contains("unsafe to leave it aside"));
            let here = here.filter_map(|problem| problem.path.strip_prefix(path));
            let here = here.filter(|key| keys.contains(&&(*key).to_owned())).map(str::to_owned);
            refused.entry(object.clone()).or_default().extend(here);
        }
    }
    refused
}

/// The keys in the first column of the tables under each heading ``## `object` ``: those with a meaning, and those that are refused.
fn documented() -> (Keys, Keys) {
    let text = std::fs::read_to_string("docs/configuration.md").unwrap();
    let (mut with_meaning, mut refused) = (Keys::new(), Keys::new());
    for part in text.split("\n## ").skip(1) {
        let (heading, body) = part.split_once('\n').unwrap();
        let rows = body.lines().filter(|line| line.starts_with("| `"));
        let (not_here, here): (Vec<_>, Vec<_>) = rows.partition(|row| row.contains(" |  | refused: "));
        let keys = |rows: &[&str]| -> BTreeSet<_> {
            let columns = rows.iter().filter_map(|row| row.strip_prefix("| `")?.split(" | ").next());
            columns
                .flat_map(|column| column.split(", ").map(|key| key.trim_matches('`').to_owned()))
                .collect()
        };
        // Objects of the same kind share a section.
        for object in heading.split(", ") {
            let object = object.trim_matches('`').trim_start_matches("the file");
            let before = with_meaning.insert(object.to_owned(), keys(&here));
            assert!(before.is_none(), "{object} stands twice");
            refused.insert(object.to_owned(), keys(&not_here));
        }
    }
    (with_meaning, refused)
}

#[test]
fn every_key_is_documented() {
    let known = known();
    let (documented, refusals) = documented();
    for (object, keys) in &known {
        let written = documented.get(object).unwrap_or_else(|| panic!("no section for {object:?}: {keys:?}"));
        let missing: Vec<_> = keys.difference(written).collect();
        assert!(missing.is_empty(), "{object}: not documented {missing:?}");
    }
    for (object, keys) in refused(&known, &documented, &refusals) {
        // What one of the objects of a section knows, another may refuse.
        let elsewhere = documented[&object].difference(&known[&object]).cloned();
        let written: BTreeSet<_> = refusals[&object].iter().cloned().chain(elsewhere).collect();
        let missing: Vec<_> = keys.difference(&written).collect();
        let gone: Vec<_> = written.difference(&keys).collect();
        assert!(
            missing.is_empty() && gone.is_empty(),
            "{object}: refused and not documented {missing:?}, neither known nor refused {gone:?}"
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
