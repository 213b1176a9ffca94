//! The default ingress as a component against the same rules natively linked.

use super::{built, runtime};
use pointsman::addr::Host;
use pointsman::plugin::{Binding, Chain, OnError, Plugin, Source};
use pointsman::route::ingress::{Rule, Table};
use pointsman::route::{Answer, Endpoint, Extra, Ingress, Protocol, Request, Verdict};
use proptest::prelude::*;
use std::sync::Arc;

/// The tunnel, and whether it is private; what decided is another in each.
fn answer(ingress: &dyn Ingress, host: &str) -> Option<(uuid::Uuid, bool)> {
    let request = Request {
        hostname: Host::parse(host).unwrap(),
        protocol: Protocol::Tls,
        client: "192.0.2.1:4000".parse().unwrap(),
        service: "web",
        http: None,
        extra: Extra::default(),
    };
    match ingress.resolve(&request) {
        Answer::Now(decision) => match decision.unwrap() {
            Verdict::Use(Endpoint { tunnel, private, .. }) => Some((tunnel, private)),
            Verdict::Pass => None,
            Verdict::Refuse(refusal) => panic!("{refusal:?}"),
        },
        Answer::Later(_) => panic!("a warm plugin answers at once"),
    }
}

/// Labels from so few letters that rules and hosts meet.
fn name() -> impl Strategy<Value = String> {
    prop::collection::vec("[abA]{1,2}", 1..4).prop_map(|labels| labels.join("."))
}

fn rule() -> impl Strategy<Value = Rule> {
    let hostname = prop_oneof![
        name(),
        name().prop_map(|name| format!(".{name}")),
        name().prop_map(|name| format!("*.{name}")),
        Just("*".to_owned()),
        Just("a..b".to_owned()),
    ];
    let id = (1u8..5).prop_map(|n| uuid::Uuid::from_bytes([n; 16]).to_string());
    let endpoint = prop_oneof![
        5 => id.clone(),
        2 => id.prop_map(|id| format!("${id}")),
        1 => Just("nowhere".to_owned()),
    ];
    (hostname, endpoint).prop_map(|(hostname, endpoint)| Rule { hostname, endpoint })
}

/// Both forms that the plugin reads.
fn written(rules: &[Rule], columns: bool) -> String {
    let line = |rule: &Rule| match columns {
        true => format!("{}\t{}  # a comment\n\n", rule.hostname, rule.endpoint),
        false => format!("- {{ hostname: '{}', endpoint: '{}' }}\n", rule.hostname, rule.endpoint),
    };
    let head = if columns { "# two columns\n" } else { "rules:\n" };
    format!("{head}{}", rules.iter().map(line).collect::<String>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn component_and_native_rules_answer_alike(
        rules in prop::collection::vec(rule(), 0..30),
        hosts in prop::collection::vec(name(), 1..80),
        columns in any::<bool>(),
    ) {
        let plugin = plugin();
        plugin.install(&Source { config: written(&rules, columns), ..source() }).unwrap();
        let component = Chain::bound(Binding::new(plugin, OnError::Refuse), Table::new(&[]).0);
        let native = Table::new(&rules).0;
        for host in hosts {
            let expected = answer(&native, &host);
            // Asked twice: the second answer comes from the cache.
            prop_assert_eq!(answer(&component, &host), expected, "{}", host);
            prop_assert_eq!(answer(&component, &host), expected, "{}", host);
        }
    }
}

thread_local! {
    static DIR: tempfile::TempDir = tempfile::tempdir().unwrap();
    static PLUGIN: Arc<Plugin> = Plugin::new(&DIR.with(runtime), "yaml-ingress");
}

fn plugin() -> Arc<Plugin> {
    PLUGIN.with(Arc::clone)
}

fn source() -> Source {
    Source { code: std::fs::read(built("yaml-ingress")).unwrap(), ..Source::default() }
}

/// YAML has many ways to say the same.
#[test]
fn yaml_is_told_from_two_columns() {
    let id = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
    let rule = format!("{{ hostname: a.example, endpoint: {id} }}");
    for config in [
        format!("rules: [{rule}]"),
        format!("---\nrules:\n- {rule}\n"),
        format!("--- # rules\nrules: [{rule}]\n...\n"),
        format!("%YAML 1.2\n---\nrules: [{rule}]\n"),
        format!("\u{feff}# why\r\n\r\nrules:\r\n- {rule}\r\n"),
        format!("{{ rules: [{rule}] }}"),
        format!("{{\"rules\": [{{\"hostname\": \"a.example\", \"endpoint\": \"{id}\"}}]}}"),
        format!("'rules': [{rule}]"),
        format!("a.example {id}"),
        format!("\u{feff}# why\n2001:db8:: {id}\n\ta.example\t{id}"),
    ] {
        let plugin = plugin();
        plugin.install(&Source { config: config.clone(), ..source() }).unwrap();
        let chain = Chain::bound(Binding::new(plugin, OnError::Refuse), Table::new(&[]).0);
        assert!(answer(&chain, "a.example").is_some(), "{config}");
    }
}

#[test]
fn a_configuration_that_is_none_is_refused() {
    for (config, told) in [
        ("rules: [{ hostname: x }]", "endpoint"),
        ("rule: []", "rule"),
        ("rules:\n- { hostname: x, endpoint: y, port: 80 }", "port"),
        ("- hostname: a.example\n  endpoint: x\n", "line 1"),
        ("[{ hostname: a.example, endpoint: x }]", "line 1"),
        ("rules : []", "line 1"),
        ("a.example 4d21094e-b74c-4916-86c1-d9fa36ea677b\nb.example\n", "line 2"),
        ("a.example b c", "line 1"),
    ] {
        let refused = plugin().install(&Source { config: config.to_owned(), ..source() });
        let error = refused.expect_err(config).to_string();
        assert!(error.contains(told), "{config}: {error}");
    }
}
