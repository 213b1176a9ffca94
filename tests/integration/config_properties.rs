//! Properties of the configuration: what is valid loads, what is broken is explained, and nothing takes for ever.

use pointsman::chain::Connector;
use pointsman::config::{self, Listener, MAX_FILE_SIZE, Problems, Source, Targets};
use proptest::prelude::*;
use std::time::Duration;

fn load(text: String) -> Result<config::Loaded, Problems> {
    config::load(&[Source { name: "f.yaml".to_owned(), text }])
}

fn shown(problems: &Problems) -> String {
    problems.0.iter().map(ToString::to_string).collect()
}

/// A duration as people write it, and what it is.
fn duration() -> impl Strategy<Value = (String, Duration)> {
    prop_oneof![
        (1..100_000_u64).prop_map(|n| (format!("{n}"), Duration::from_secs(n))),
        (1..100_000_u64).prop_map(|n| (format!("{n}s"), Duration::from_secs(n))),
        (1..100_000_u64).prop_map(|n| (format!("'{n}ms'"), Duration::from_millis(n))),
        (1..u64::from(u32::MAX)).prop_map(|n| (format!("{n}ns"), Duration::from_nanos(n))),
        (0..100_u64, 1..60_u64, 0..60_u64)
            .prop_map(|(h, m, s)| (format!("{h}h{m}m{s}s"), Duration::from_secs(h * 3600 + m * 60 + s))),
        (0..1000_u64, 1..1000_u64)
            .prop_map(|(s, ms)| (format!("\"{s}.{ms:03}s\""), Duration::from_millis(s * 1000 + ms))),
    ]
}

fn host() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,10}(\\.[a-z0-9_]{1,8}){0,3}"
}

/// An address, and its one normal form.
fn address() -> impl Strategy<Value = (String, String)> {
    let host = prop_oneof![
        host().prop_map(|host| (host.clone(), host)),
        any::<std::net::Ipv4Addr>().prop_map(|ip| (ip.to_string(), ip.to_string())),
        any::<std::net::Ipv6Addr>()
            .prop_filter("has a form of its own", |ip| ip.to_ipv4_mapped().is_none())
            .prop_map(|ip| (format!("[{ip}]"), format!("[{ip}]"))),
    ];
    (host, 1..=u16::MAX).prop_map(|((text, form), port)| (format!("{text}:{port}"), format!("{form}:{port}")))
}

/// A tunnel ID in one of the forms that GOST reads.
fn tunnel_id() -> impl Strategy<Value = (String, uuid::Uuid)> {
    (1..u128::MAX, 0..5).prop_map(|(n, form)| {
        let id = uuid::Uuid::from_u128(n);
        let text = match form {
            0 => id.to_string(),
            1 => id.simple().to_string(),
            2 => id.braced().to_string(),
            3 => id.urn().to_string(),
            _ => id.to_string().to_uppercase(),
        };
        (text, id)
    })
}

/// The same word in lower, upper or mixed case.
fn cased(word: &'static str) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<bool>(), word.len()).prop_map(move |upper| {
        word.chars().zip(upper).map(|(c, up)| if up { c.to_ascii_uppercase() } else { c }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_forwarder_is_read_as_written(
        (time, expected) in duration(),
        key in cased("readTimeout"),
        strategy in prop::sample::select(vec!["round", "rr", "random", "rand", "fifo", "ha", "hash"]),
        nodes in proptest::collection::vec((address(), prop::option::of(host()), 0..5_u32, any::<bool>()), 1..5),
    ) {
        let mut text = format!(
            "services:\n- addr: :8080\n  handler: {{ type: tcp, metadata: {{ sniffing: true, {key}: {time} }} }}\n  \
             forwarder:\n    selector: {{ strategy: {strategy} }}\n    nodes:\n"
        );
        for ((addr, _), host, weight, backup) in &nodes {
            text += &format!("    - addr: '{addr}'\n      metadata: {{ weight: {weight}, backup: {backup} }}\n");
            if let Some(host) = host {
                text += &format!("      host: '{host}'\n");
            }
        }
        let loaded = load(text.clone()).map_err(|p| TestCaseError::fail(format!("{text}\n{}", shown(&p))))?;
        prop_assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let Targets { settings, hop, .. } = loaded.config.services[0].handler.targets().unwrap();
        prop_assert_eq!(settings.http.reply_timeout, expected);
        for (node, ((_, form), host, weight, backup)) in hop.nodes.iter().zip(&nodes) {
            prop_assert_eq!(node.addr.as_ref().map(ToString::to_string), Some(form.clone()));
            prop_assert_eq!(&node.host, host.as_deref().unwrap_or_default());
            prop_assert_eq!((node.weight, node.backup), ((*weight).max(1), *backup));
        }
    }

    #[test]
    fn a_client_is_read_as_written(
        (addr, form) in address(),
        (id, expected) in tunnel_id(),
        (time, wait) in duration(),
        weight in any::<u8>(),
        hop_by_name in any::<bool>(),
    ) {
        let nodes = format!(
            "nodes: [{{ addr: '{addr}', connector: {{ type: tunnel, metadata: \
             {{ tunnelID: '{id}', tunnel.weight: '{weight}' }} }} }}]"
        );
        let (inside, outside) = if hop_by_name { (String::new(), nodes) } else { (format!(", {nodes}"), "nodes: []".to_owned()) };
        let hops = if hop_by_name { format!("hops: [{{ name: h, {outside} }}]") } else { String::new() };
        let text = format!(
            "services:\n- addr: :0\n  handler: {{ type: whoami }}\n  listener: {{ type: rtcp, chain: c, metadata: \
             {{ handshakeTimeout: {time} }} }}\nchains: [{{ name: c, hops: [{{ name: h{inside} }}] }}]\n{hops}\n"
        );
        let loaded = load(text.clone()).map_err(|p| TestCaseError::fail(format!("{text}\n{}", shown(&p))))?;
        let Listener::Rtcp { client: settings, chain } = &loaded.config.services[0].listener else { panic!("{text}") };
        prop_assert_eq!(settings.handshake_timeout, wait);
        let node = &loaded.config.chains[chain].hops[0].settings.nodes[0];
        let server = node.server.as_ref().unwrap();
        prop_assert_eq!(server.addr.to_string(), form);
        prop_assert_eq!(&server.connector, &Connector::Tunnel { id: expected, weight });
    }

    #[test]
    fn a_duration_is_read_to_the_nanosecond(h in 0..1000_u64, m in 0..60_u64, s in 0..60_u64, ns in 0..1_000_000_000_u64) {
        let text = format!("{h}h{m}m{s}.{ns:09}s");
        prop_assert_eq!(
            config::parse_duration(&text),
            Some(Duration::from_secs(h * 3600 + m * 60 + s) + Duration::from_nanos(ns))
        );
    }
}

/// What a tired hand does to a file.
fn mutate(text: &str, rng: &mut fastrand::Rng) -> String {
    const ODD: &[&str] = &[
        "",
        "''",
        "[]",
        "{}",
        "~",
        "-",
        "-1",
        "0",
        "99999999999999999999",
        "1e400",
        "true",
        "10x",
        "*a",
        "&a x",
        "<<",
        "!!binary x",
        "? x",
        "|",
        "\t",
        "\u{0}",
        "é",
        ":",
        "#",
        "a: b",
        "[x",
        "{x",
        "\"",
        "...",
        "---",
        "%YAML 1.2",
    ];
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let words: Vec<_> = text
        .split(|c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr().addr() - text.as_ptr().addr(), word))
        .collect();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let line = rng.usize(..lines.len());
    let (at, word) = words[rng.usize(..words.len())];
    let replaced = |with: &str| format!("{}{with}{}", &text[..at], &text[at + word.len()..]);
    match rng.u8(..7) {
        0 => lines.iter().enumerate().filter(|(i, _)| *i != line).map(|(_, line)| *line).collect(),
        1 => lines
            .iter()
            .enumerate()
            .flat_map(|(i, l)| std::iter::repeat_n(*l, 1 + usize::from(i == line)))
            .collect(),
        2 => lines
            .iter()
            .enumerate()
            .map(|(i, l)| if i == line { format!("  {l}") } else { (*l).to_owned() })
            .collect(),
        3 => replaced(ODD[rng.usize(..ODD.len())]),
        4 => replaced(words[rng.usize(..words.len())].1),
        5 => replaced(&format!("{word}{}", char::from(rng.u8(b'a'..=b'z')))),
        _ => text.chars().take(rng.usize(..text.len())).collect(),
    }
}

#[test]
fn broken_files_are_explained_and_never_a_panic() {
    let mut rng = fastrand::Rng::with_seed(20);
    let (mut good, mut bad) = (0, 0);
    for entry in std::fs::read_dir("tests/data/config/good").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        let original = std::fs::read_to_string(&path).unwrap();
        for _ in 0..400 {
            let mut text = original.clone();
            for _ in 0..rng.usize(1..4) {
                text = mutate(&text, &mut rng);
                if !text.chars().any(char::is_alphanumeric) {
                    text = original.clone();
                }
            }
            let lines = text.split(['\n', '\r']).count();
            match load(text.clone()) {
                Ok(_) => good += 1,
                Err(problems) => {
                    bad += 1;
                    for problem in &problems.0 {
                        let whole = problem.line == 0 && problem.message.contains("no services");
                        let whole = whole || (problem.line == 0 && problem.message.contains("empty"));
                        assert!(whole || (1..=lines).contains(&problem.line), "{problem}\n{text}");
                        assert!(problem.to_string().len() < 4_000, "{problem}");
                    }
                }
            }
        }
    }
    assert!(good > 300 && bad > 2_000, "{good} {bad}");
}

#[test]
fn bounds_are_named() {
    let bomb: String = (0..9)
        .map(|i| match i {
            0 => "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(),
            _ => format!("a{i}: &a{i} [{}]\n", format!("*a{},", i - 1).repeat(10)),
        })
        .collect();
    let nested_anchors: String = "&a [".repeat(60) + &"x,".repeat(200_000) + &"]".repeat(60);
    for (text, bound) in [
        ("[".repeat(1 << 20), "deeper than 64 levels"),
        ("- ".repeat(1 << 20), "deeper than 64 levels"),
        ("{a: ".repeat(1 << 16), "deeper than 64 levels"),
        (bomb, "more than 200000 values"),
        (nested_anchors, "more than 200000 values"),
        ("# comment\n".repeat(MAX_FILE_SIZE / 10 + 1), "more than 33554432"),
    ] {
        let start = text.chars().take(40).collect::<String>();
        let Err(problems) = load(text) else { panic!("{start} was taken") };
        assert!(shown(&problems).contains(bound), "{start}: {}", shown(&problems));
    }
}

/// Files with a hundred thousand mistakes: the first are shown, the rest counted, all in time that grows with the file.
#[test]
fn many_mistakes_are_counted() {
    let keys: String = (0..100_000).map(|i| format!("unknown{i}: x\n")).collect();
    let twice = "services: []\n".repeat(100_000);
    let rules: String = (0..100_000).map(|i| format!("  - {{ hostname: h{i}, endpoint: none }}\n")).collect();
    let rules = format!(
        "ingresses:\n- name: i\n  rules:\n{rules}services: [{{ addr: ':1', handler: {{ type: whoami }} }}]\n"
    );
    let Err(problems) = load(keys) else { panic!() };
    assert!(shown(&problems).contains("99900 more errors"), "{}", problems.0.len());
    let Err(problems) = load(twice) else { panic!() };
    assert!(shown(&problems).contains("more errors") && problems.0.len() <= 101);
    let loaded = load(rules).unwrap();
    assert_eq!(loaded.warnings.len(), 101);
    assert!(loaded.warnings[100].to_string().contains("99900 more warnings"));
}
