//! The same tools for plugins that decide who may open a tunnel.

use super::{Desk, TUNNEL};

/// A client that opens a tunnel, by flags, from a file, and in a table.
#[test]
fn a_question_with_a_tunnel_is_who_may_open_it() {
    let desk = Desk::new(&["admits", "fixed", "choice"]);
    let asked = ["call", "admits.wasm", "--tunnel", TUNNEL];
    let call = |more: &[&str]| desk.json(&[&asked[..], more].concat());
    let (code, json) = call(&[]);
    assert_eq!((code, &json["answer"]), (0, &serde_json::json!({ "allow": [] })), "{json}");
    let (_, json) = call(&["--host", "n.example"]);
    assert_eq!(json["answer"], serde_json::json!({ "allow": ["a.example", "*.b.example"] }));
    assert_eq!(call(&["--host", "p.example"]).1["answer"], "pass");
    let (code, json) = call(&["--host", "u.example", "--user", "ann"]);
    assert_eq!((code, &json["answer"], &json["reason"]), (0, &"deny".into(), &"ann".into()), "{json}");
    assert_eq!(call(&["--host", "f.example", "--udp"]).1["reason"], "udp");
    assert_eq!(call(&["--host", "m.example", "--metadata", "region=north"]).1["reason"], "north");
    let (_, json) = call(&["--host", "c.example"]);
    assert_eq!(json["reuse"], serde_json::json!({ "ttl_ms": 60_000, "depends_on": ["client"] }), "{json}");
    let said = desk.run(&[&asked[..], &["--host", "c.example"]].concat());
    assert!(said.out.contains("the same tunnel and user and hostname and client"), "{}", said.out);
    let (code, json) = call(&["--host", "b.example"]);
    assert!(code == 1 && json["error"].as_str().unwrap().contains("\"*\" is no host"), "{json}");

    desk.write("ask.yaml", format!("tunnel: {TUNNEL}\nuser: bob\nhostname: u.example\n"));
    assert_eq!(desk.json(&["call", "admits.wasm", "--request", "ask.yaml"]).1["reason"], "bob");
    for (plugin, arguments, told) in [
        ("admits.wasm", &["--tunnel", "none"][..], "no UUID"),
        ("admits.wasm", &["--tunnel", "$4d21094e-b74c-4916-86c1-d9fa36ea677b"], "no UUID"),
        ("admits.wasm", &["--user", "ann"], "expected tunnel: UUID"),
        ("admits.wasm", &["--host", "a.example"], "only about clients that open one"),
        ("admits.wasm", &["--node", "n"], "only about clients that open a tunnel"),
        ("admits.wasm", &["--tunnel", TUNNEL, "--node", "n"], "no nodes"),
        ("admits.wasm", &["--tunnel", TUNNEL, "--path", "/"], "nothing of HTTP"),
        ("fixed.wasm", &["--tunnel", TUNNEL], "does not decide who may open one"),
        ("choice.wasm", &["--host", "a.example"], "only where there are candidates"),
    ] {
        let said = desk.run(&[&["call", plugin], arguments].concat());
        assert!(said.code == 2 && said.err.contains(told), "{arguments:?}: {} {}", said.code, said.err);
    }

    let case = |host: &str, expect: &str| {
        format!("- request: {{ tunnel: {TUNNEL}, user: ann, hostname: {host} }}\n  expect: {expect}\n")
    };
    let right = [case("d.example", "deny"), case("n.example", "{ allow: [A.example, .b.example] }")].concat();
    desk.write("admits.cases.yaml", format!("cases:\n{right}"));
    let said = desk.run(&["test", "admits.wasm"]);
    assert_eq!((said.code, &*said.out), (0, "2 of 2 cases hold\n"), "{}", said.err);
    desk.write("bad.yaml", format!("cases:\n{}", case("n.example", "{ allow: [a.example] }")));
    let said = desk.run(&["test", "admits.wasm", "bad.yaml"]);
    let expected = format!(
        "bad.yaml:2: ann {TUNNEL} n.example
- {{ allow: [a.example] }}
+ {{ allow: [a.example, '*.b.example'] }}

0 of 1 cases hold
"
    );
    assert_eq!((said.code, &*said.out), (1, &*expected), "{}", said.err);

    let (code, json) = desk.json(&["check", "admits.wasm"]);
    assert_eq!((code, &json["kinds"]), (0, &serde_json::json!(["admission"])), "{json}");
    let (code, json) = desk.json(&["bench", "admits.wasm", "--seconds", "0.1"]);
    assert_eq!(
        (code, &json["answer"], &json["failed"]),
        (0, &serde_json::json!({ "allow": [] }), &0.into()),
        "{json}"
    );
    let reused = ["bench", "admits.wasm", "--tunnel", TUNNEL, "--host", "c.example", "--seconds", "0.1"];
    assert!(desk.json(&reused).1["cached_ns"].is_u64());
}
