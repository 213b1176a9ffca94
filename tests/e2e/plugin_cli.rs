//! `pointsman plugin ...` as an author or a script uses it.

mod admission;

use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// A folder with plugins, and the program that is run in it.
struct Desk(tempfile::TempDir);

/// What a command said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Desk {
    /// With these guests of `tests/data/guests`, assembled.
    fn new(guests: &[&str]) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        for name in guests {
            let text = std::fs::read_to_string(format!("tests/data/guests/{name}.wat")).unwrap();
            desk.write(&format!("{name}.wasm"), wat::parse_str(text).unwrap());
        }
        desk
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(file), content).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command
            .arg("plugin")
            .args(arguments)
            // On a machine that is busy with other tests five milliseconds may go by without a plugin's doing.
            .args(["--deadline", "50ms"].iter().filter(|_| arguments[0] != "new"))
            .current_dir(self.0.path())
            .env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    /// Runs with `--json`: exit status and object.
    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let said = self.run(&[arguments, &["--json"]].concat());
        let object = serde_json::from_str(&said.out);
        (said.code, object.unwrap_or_else(|e| panic!("{e}: {:?} {:?}", said.out, said.err)))
    }
}

const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";

#[test]
fn check_tells_what_is_in_a_file() {
    let desk = Desk::new(&["fixed", "choice"]);
    let said = desk.run(&["check", "fixed.wasm"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(lines[0], "fixed.wasm: ok");
    for expected in [
        "decides     ingress",
        "config      none",
        "exports     pointsman:routing/ingress@1.0.0",
        "imports     pointsman:routing/host@1.0.0",
    ] {
        assert!(lines.contains(&expected), "{expected}: {}", said.out);
    }

    let (code, json) = desk.json(&["check", "fixed.wasm"]);
    assert_eq!((code, &json["ok"], &json["wrapped"]), (0, &true.into(), &true.into()), "{json}");
    assert_eq!(json["kinds"], serde_json::json!(["ingress"]));
    assert_eq!(json["version"].as_str().unwrap().len(), 12);
    assert_eq!(json["size"], std::fs::metadata(desk.path("fixed.wasm")).unwrap().len());
    assert_eq!((&json["problems"], &json["denied"]), (&serde_json::json!([]), &serde_json::json!([])));

    // What lies beside a plugin that reads no configuration.
    desk.write("choice.yaml", "x: 1\n");
    let (code, json) = desk.json(&["check", "choice.wasm"]);
    assert_eq!((code, &json["kinds"]), (0, &serde_json::json!(["forwarder"])), "{json}");
    assert!(json["warnings"][0].as_str().unwrap().contains("choice.yaml is not read"), "{json}");

    // A name that the watched folder passes over.
    std::fs::copy(desk.path("fixed.wasm"), desk.path("my plugin.wasm")).unwrap();
    let (code, json) = desk.json(&["check", "my plugin.wasm"]);
    assert_eq!((code, json["warnings"].as_array().unwrap().len()), (0, 1), "{json}");
    assert!(json["warnings"][0].as_str().unwrap().contains("does not take"), "{json}");
}

/// Who asks for an object gets one, whatever was wrong.
#[test]
fn a_wrong_command_line_is_told_in_the_form_asked_for() {
    let desk = Desk::new(&["fixed"]);
    let wrong = ["call", "fixed.wasm", "--hots", "a.example"];
    let (code, json) = desk.json(&wrong);
    assert_eq!((code, &json["ok"]), (2, &false.into()), "{json}");
    assert!(json["error"].as_str().unwrap().contains("--hots"), "{json}");
    let said = desk.run(&wrong);
    assert!(said.code == 2 && said.out.is_empty() && said.err.contains("--hots"), "{}{}", said.out, said.err);
    let said = desk.run(&["call", "--help", "--json"]);
    assert!(said.code == 0 && said.out.contains("Exit status"), "{}{}", said.out, said.err);
}

#[test]
fn check_tells_why_a_file_is_no_plugin() {
    let desk = Desk::new(&["fixed"]);
    let whole = std::fs::read(desk.path("fixed.wasm")).unwrap();
    desk.write("text.wasm", "hello");
    desk.write("half.wasm", &whole[..whole.len() / 2]);
    desk.write("other.wasm", wat::parse_str("(module (func (export \"answer\")))").unwrap());
    let newer = "(component (import \"pointsman:routing/host@2.1.0\" (instance)))";
    desk.write("newer.wasm", wat::parse_str(newer).unwrap());
    for (file, told) in [
        ("text.wasm", "not WebAssembly"),
        ("half.wasm", "not a whole WebAssembly module"),
        ("other.wasm", "exports none of pointsman:routing/ingress@1.0.0"),
        ("newer.wasm", "built for version 2.1.0"),
    ] {
        let (code, json) = desk.json(&["check", file]);
        assert_eq!((code, &json["ok"]), (1, &false.into()), "{file}: {json}");
        assert!(json["problems"][0].as_str().unwrap().contains(told), "{file}: {json}");
    }
    // Its configuration is tried, the one beside it or another.
    desk.write("fixed.yaml", "bad\n");
    desk.write("good.yaml", "good\n");
    let (code, json) = desk.json(&["check", "fixed.wasm"]);
    assert_eq!((code, &json["config"]), (1, &"fixed.yaml".into()), "{json}");
    assert!(json["problems"][0].as_str().unwrap().contains("bad configuration"), "{json}");
    assert_eq!(desk.run(&["check", "fixed.wasm", "--config", "good.yaml"]).code, 0);
}

/// The pool of instances takes 4 TiB of addresses where it gets them.
#[test]
fn plugins_run_where_the_system_grants_few_addresses() {
    let desk = Desk::new(&["fixed"]);
    let limited = |kib: u32| {
        let whole = desk.command(&["call", "fixed.wasm", "--host", "a.example"]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {kib} && exec \"$0\" \"$@\"")]);
        command.arg(whole.get_program()).args(whole.get_args()).current_dir(desk.0.path());
        let output = command.env("XDG_CACHE_HOME", desk.path("cache")).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(limited(96 << 20).0, Some(0));
    // Too few even for a small one.
    let (code, said) = limited(16 << 20);
    assert!(code == Some(2) && said.contains("cannot set up the plugin engine"), "{code:?}: {said}");
}

#[test]
fn check_names_what_of_wasi_is_denied() {
    let desk = Desk::new(&[]);
    // `now` is offered, `stop` is nothing that this host knows.
    let component = r#"(component
        (import "wasi:clocks/monotonic-clock@0.2.3" (instance
            (export "now" (func (result u64)))
            (export "stop" (func))))
        (import "pointsman:routing/host@1.0.0" (instance)))"#;
    desk.write("clock.wasm", wat::parse_str(component).unwrap());
    let (code, json) = desk.json(&["check", "clock.wasm"]);
    assert_eq!(code, 1, "{json}");
    assert!(
        json["imports"].as_array().unwrap().contains(&"wasi:clocks/monotonic-clock@0.2.3".into()),
        "{json}"
    );
    assert_eq!(json["denied"], serde_json::json!(["wasi:clocks/monotonic-clock@0.2.6#stop"]), "{json}");
}

#[test]
fn call_prints_answer_cost_and_log() {
    let desk = Desk::new(&["fixed", "choice"]);
    let said = desk.run(&["call", "fixed.wasm", "--host", "a.example"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(lines[0], format!("answer      {{ tunnel: {TUNNEL} }}"));
    assert!(lines[1].starts_with("time        "), "{}", said.out);
    assert_eq!(lines[2], "memory      128 KiB");
    assert_eq!(lines[3], format!("log         debug: {TUNNEL}"));

    let (_, json) = desk.json(&["call", "fixed.wasm", "--host", "c.example"]);
    assert_eq!(json["reuse"], serde_json::json!({ "ttl_ms": 60_000, "depends_on": [] }), "{json}");
    assert_eq!(json["answer"], serde_json::json!({ "tunnel": TUNNEL }));
    assert!(json["ns"].as_u64().unwrap() > 0 && json["memory"] == 128 << 10, "{json}");
    assert_eq!(json["log"], serde_json::json!([{ "level": "debug", "message": TUNNEL }]));

    let (code, json) = desk.json(&["call", "fixed.wasm", "--host", "r.example"]);
    assert_eq!((code, &json["reason"]), (0, &"not today".into()), "{json}");
    assert_eq!(json["answer"], serde_json::json!({ "refuse": 451 }));
    for (host, told) in [("e.example", "not today"), ("t.example", "trap"), ("l.example", "no answer within")]
    {
        let (code, json) = desk.json(&["call", "fixed.wasm", "--host", host]);
        assert_eq!((code, &json["answer"]), (1, &"error".into()), "{json}");
        assert!(json["error"].as_str().unwrap().contains(told), "{json}");
    }

    let nodes = ["--node", "blue=10.0.0.1:80", "--node", "green"];
    let (code, json) = desk.json(&[&["call", "choice.wasm"], &nodes[..]].concat());
    assert_eq!((code, &json["answer"]), (0, &serde_json::json!({ "node": "green" })), "{json}");
    let nine = ["--node", "n"].repeat(9);
    let (code, json) = desk.json(&[&["call", "choice.wasm"], &nine[..]].concat());
    assert!(code == 1 && json["error"].as_str().unwrap().contains("node 9 of 9"), "{json}");
}

#[test]
fn call_takes_its_question_from_a_file_and_flags_stand_above_it() {
    let desk = Desk::new(&["fixed"]);
    desk.write(
        "ask.yaml",
        "hostname: p.example\nclient: 192.0.2.1\nheaders: { cookie: a=1 }\nstore: { k: v }\n",
    );
    assert_eq!(desk.json(&["call", "fixed.wasm", "--request", "ask.yaml"]).1["answer"], "pass");
    let both = ["call", "fixed.wasm", "--request", "ask.yaml", "--host", "x.example", "--path", "/a?b"];
    assert_eq!(desk.json(&both).1["answer"], serde_json::json!({ "expose": TUNNEL }));

    desk.write("typo.yaml", "hostnam: p.example\n");
    for (arguments, told) in [
        (&["--request", "typo.yaml"][..], "hostnam"),
        (&["--request", "none.yaml"], "none.yaml"),
        (&["--host", "a.example", "--node", "n"], "this plugin decides for an ingress"),
        (&["--host", "a.example", "--client", "nobody"], "invalid IP address"),
        (&["--host", "a.example", "--protocol", "gopher"], "none of http1"),
        (&["--host", "a.example", "--now", "noon"], "no time such as"),
        (&["--header", "cookie"], "expected NAME:VALUE"),
        (&[], "no question: give --host NAME"),
    ] {
        let said = desk.run(&[&["call", "fixed.wasm"], arguments].concat());
        assert!(said.code == 2 && said.err.contains(told), "{arguments:?}: {} {}", said.code, said.err);
    }
    assert_eq!(desk.run(&["call", "missing.wasm", "--host", "a.example"]).code, 2);
}

/// A script reads standard output, whatever is wrong.
#[test]
fn without_a_result_json_says_why() {
    let desk = Desk::new(&["fixed"]);
    desk.write("typo.yaml", "hostnam: p.example\n");
    std::fs::create_dir(desk.path("taken")).unwrap();
    for (arguments, told) in [
        (&["check", "missing.wasm"][..], "cannot read missing.wasm"),
        (&["test", "fixed.wasm", "missing.yaml"], "cannot read missing.yaml"),
        (&["call", "fixed.wasm", "--request", "typo.yaml"], "hostnam"),
        (&["call", "fixed.wasm"], "no question"),
        (&["bench", "fixed.wasm", "--config", "missing.yaml"], "cannot read missing.yaml"),
        (&["new", "taken", "--lang", "wat"], "is there already"),
    ] {
        let (code, json) = desk.json(arguments);
        assert_eq!((code, &json["ok"]), (2, &false.into()), "{arguments:?}: {json}");
        assert!(json["error"].as_str().unwrap().contains(told), "{arguments:?}: {json}");
    }
}

/// A script takes the exit status at its word.
#[test]
fn a_report_that_cannot_be_written_is_no_success() {
    let desk = Desk::new(&["fixed", "bad"]);
    let mut command = desk.command(&["call", "fixed.wasm", "--host", "a.example"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let said = command.stdout(full).output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("cannot write the report: "));

    let (_, json) = desk.json(&["call", "bad.wasm", "--host", "g.example"]);
    let log = json["log"].as_array().unwrap();
    assert_eq!((log.len(), &log[16]["message"]), (17, &"too many lines: 9984 more were dropped".into()));
}

#[test]
fn log_lines_are_plain_and_bench_leaves_them_out() {
    let desk = Desk::new(&[]);
    let guest = std::fs::read_to_string("tests/data/guests/fixed.wat").unwrap();
    let configure = "(func (export \"configure\") (param $config i32) (param $len i32) (result i32)";
    let logs = guest
        .replace(configure, &format!("{configure}\n(call $log (i32.const 2) (i32.const 128) (i32.const 9))"));
    assert_ne!(logs, guest);
    desk.write("logs.wasm", wat::parse_str(logs).unwrap());
    let said = desk.run(&["check", "logs.wasm"]);
    assert_eq!(said.err, " INFO plugin says plugin=\"logs\" not today\n");
    let said = desk.run(&["bench", "logs.wasm", "--host", "a.example", "--seconds", "0.1"]);
    assert_eq!((said.code, &*said.err), (0, ""), "{}", said.out);
}

#[test]
fn test_shows_what_a_table_expects_and_what_came() {
    let desk = Desk::new(&["fixed"]);
    let good =
        format!("- request: {{ hostname: a.example }}\n  expect: {{ tunnel: {} }}\n", TUNNEL.to_uppercase());
    desk.write(
        "fixed.cases.yaml",
        format!("cases:\n{good}- request: {{ hostname: t.example }}\n  expect: error\n"),
    );
    let said = desk.run(&["test", "fixed.wasm"]);
    assert_eq!((said.code, &*said.out), (0, "2 of 2 cases hold\n"), "{}", said.err);

    let bad = format!(
        "cases:\n{good}\n# wrong\n- request: {{ hostname: b.example }}\n  expect: pass\n- request: {{ hostname: e.example }}\n"
    );
    desk.write("bad.yaml", bad);
    let said = desk.run(&["test", "fixed.wasm", "bad.yaml"]);
    let expected = format!(
        "bad.yaml:6: b.example
- pass
+ {{ tunnel: {TUNNEL} }}
log         debug: {TUNNEL}

bad.yaml:8: e.example
- an answer
+ error: not today

1 of 3 cases hold
"
    );
    assert_eq!((said.code, &*said.out), (1, &*expected), "{}", said.err);
    let (code, json) = desk.json(&["test", "fixed.wasm", "bad.yaml"]);
    assert_eq!((code, &json["cases"], &json["failed"]), (1, &3.into(), &2.into()), "{json}");
    assert_eq!(
        (&json["failures"][0]["line"], &json["failures"][1]["got"]),
        (&6.into(), &"error: not today".into())
    );

    // The table's own configuration counts, and a command line's above it.
    desk.write("config.yaml", format!("config: bad\ncases:\n{good}"));
    let said = desk.run(&["test", "fixed.wasm", "config.yaml"]);
    assert!(said.code == 1 && said.err.contains("bad configuration"), "{}", said.err);
    desk.write("fine", "fine");
    assert_eq!(desk.run(&["test", "fixed.wasm", "config.yaml", "--config", "fine"]).code, 0);

    desk.write("typo.yaml", format!("cases:\n{good}- request: {{ hostnam: x }}\n"));
    let (code, json) = desk.json(&["test", "fixed.wasm", "typo.yaml"]);
    let error = json["error"].as_str().unwrap();
    assert!(
        code == 1 && error.contains("typo.yaml") && error.contains("hostnam") && error.contains('4'),
        "{error}"
    );
    desk.write(
        "nodes.yaml",
        format!("cases:\n{good}- {{ request: {{ hostname: x }}, nodes: [{{ name: n }}] }}\n"),
    );
    let said = desk.run(&["test", "fixed.wasm", "nodes.yaml"]);
    assert!(said.code == 1 && said.err.contains("nodes.yaml: the case in line 4: nodes"), "{}", said.err);
    assert_eq!(desk.run(&["test", "fixed.wasm", "none.yaml"]).code, 2);
}

#[test]
fn bench_measures_calls_and_starts() {
    let desk = Desk::new(&["fixed", "choice"]);
    let (code, json) = desk.json(&["bench", "fixed.wasm", "--host", "c.example", "--seconds", "0.2"]);
    assert_eq!((code, &json["failed"]), (0, &0.into()), "{json}");
    let number =
        |path: &str| json.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {json}"));
    assert!(number("/calls") > 10.0 && number("/memory") == f64::from(128 << 10), "{json}");
    let [min, median, p99, max] =
        ["min", "median", "p99", "max"].map(|key| number(&format!("/call_ns/{key}")));
    assert!(0.0 < min && min <= median && median <= p99 && p99 <= max, "{json}");
    // A median call at the speed that is told would fill a second.
    assert!(number("/calls_per_second") * min <= 1.01e9, "{json}");
    assert!(number("/cached_ns") < median, "{json}");
    assert!(number("/cached_load_ns") < number("/compile_ns"), "{json}");
    assert!(number("/instance_ns") > 0.0, "{json}");

    let (code, json) = desk.json(&["bench", "choice.wasm", "--seconds", "0.1"]);
    assert_eq!((code, &json["answer"]), (0, &serde_json::json!({ "node": "b" })), "{json}");
    assert_eq!(json["cached_ns"], Value::Null);
    let (code, json) = desk.json(&["bench", "fixed.wasm", "--host", "t.example", "--seconds", "0.1"]);
    assert!(code == 1 && json["failed"] == json["calls"], "{json}");
    let said = desk.run(&["bench", "fixed.wasm", "--seconds", "0.1"]);
    for what in ["answer ", "call ", "rate ", "cached ", "memory ", "compile ", "cached load ", "instance "] {
        assert!(said.out.lines().any(|line| line.starts_with(what)), "{what}: {}", said.out);
    }
    assert_eq!(desk.run(&["bench", "fixed.wasm", "--seconds", "0"]).code, 2);
}

#[test]
fn new_makes_projects_and_overwrites_nothing() {
    let desk = Desk::new(&[]);
    for lang in ["rust", "go", "js", "ts", "python", "c", "assemblyscript", "wat"] {
        let name = format!("my-{lang}");
        let (code, json) = desk.json(&["new", &name, "--lang", lang]);
        assert_eq!((code, &json["ok"]), (0, &true.into()), "{json}");
        for file in [
            "README.md",
            "Makefile",
            "wit/routing.wit",
            &format!("{name}.yaml"),
            &format!("{name}.cases.yaml"),
        ] {
            let path = format!("{name}/{file}");
            assert!(json["files"].as_array().unwrap().contains(&path.as_str().into()), "{path}: {json}");
        }
        for file in json["files"].as_array().unwrap() {
            let text = std::fs::read_to_string(desk.path(file.as_str().unwrap())).unwrap();
            assert!(!text.contains("example-plugin") && !text.contains("example_plugin"), "{file}");
        }
        let said = desk.run(&["new", &name, "--lang", lang]);
        assert!(said.code == 2 && said.err.contains("is there already"), "{}", said.err);
    }
    assert_eq!(desk.run(&["new", "../x", "--lang", "wat"]).code, 2);
    assert_eq!(desk.run(&["new", "x", "--lang", "cobol"]).code, 2);
    let said = desk.run(&["new", "x", "--lang", "go", "--decides", "admission"]);
    assert!(said.code == 2 && said.err.contains("--lang rust") && !desk.path("x").exists(), "{}", said.err);
}

/// As `wat2wasm` does it.
#[test]
fn a_new_wat_project_holds_to_its_table() {
    let desk = Desk::new(&[]);
    assert_eq!(desk.run(&["new", "my-plugin", "--lang", "wat"]).code, 0);
    let wasm = wat::parse_file(desk.path("my-plugin/my-plugin.wat")).unwrap();
    desk.write("my-plugin/my-plugin.wasm", wasm);
    let said = desk.run(&["test", "my-plugin/my-plugin.wasm"]);
    assert_eq!((said.code, &*said.out), (0, "4 of 4 cases hold\n"), "{}", said.err);
    let (code, json) = desk.json(&["check", "my-plugin/my-plugin.wasm"]);
    assert_eq!((code, &json["warnings"]), (0, &serde_json::json!([])), "{json}");
    // Strings that come with calls do not pile up.
    let (code, json) = desk.json(&["bench", "my-plugin/my-plugin.wasm", "--seconds", "0.2"]);
    assert_eq!((code, &json["memory"]), (0, &(64 << 10).into()), "{json}");
}

#[test]
fn a_new_rust_project_builds_and_holds_to_its_table() {
    let desk = Desk::new(&[]);
    for (name, decides) in [("my-plugin", "ingress"), ("my-door", "admission")] {
        assert_eq!(desk.run(&["new", name, "--lang", "rust", "--decides", decides]).code, 0);
        // What it depends on is built once, not in every run.
        let target = concat!("TARGET_DIR=", env!("CARGO_TARGET_TMPDIR"), "/new-rust");
        let built = Command::new("make").arg(target).current_dir(desk.path(name)).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let file = format!("{name}/{name}.wasm");
        let said = desk.run(&["test", &file]);
        assert_eq!((said.code, &*said.out), (0, "4 of 4 cases hold\n"), "{}", said.err);
        // What lies beside it is a configuration of its own.
        let (code, json) = desk.json(&["check", &file]);
        assert_eq!((code, &json["kinds"]), (0, &serde_json::json!([decides])), "{json}");
    }
}
