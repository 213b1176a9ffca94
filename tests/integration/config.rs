//! The runnable files, and what is said about wrong ones.

use pointsman::config::{self, Problems, Source};

fn load(name: &str, text: &str) -> Result<config::Loaded, Problems> {
    config::load(&[Source { name: name.to_owned(), text: text.to_owned() }])
}

#[test]
fn the_examples_load_without_a_warning() {
    let mut count = 0;
    for entry in std::fs::read_dir("config").unwrap() {
        let path = entry.unwrap().path();
        let loaded = load(path.to_str().unwrap(), &std::fs::read_to_string(&path).unwrap());
        let loaded = loaded.unwrap_or_else(|p| panic!("{}: {:#?}", path.display(), p));
        assert!(loaded.warnings.is_empty(), "{}: {:#?}", path.display(), loaded.warnings);
        assert!(!loaded.config.services.is_empty());
        count += 1;
    }
    assert_eq!(count, 5);
}

const GOOD: &str = "\
services:
- name: s
  addr: :8080
  handler: { type: tcp, metadata: { sniffing: true } }
  forwarder:
    nodes:
    - { name: a, addr: 'a:80', host: a.example }
";

#[test]
fn every_problem_is_shown_where_it_stands() {
    for (from, to, line, texts) in [
        (
            "addr: :8080",
            "adr: :8080",
            3,
            &["unknown key \"adr\"", "did you mean \"addr\"?", "3 |   adr: :8080"][..],
        ),
        ("type: tcp", "type: tpc", 4, &["\"tpc\" is not supported", "did you mean \"tcp\"?"]),
        ("sniffing: true", "sniffing: maybe", 4, &["found \"maybe\"", "expected true or false"]),
        ("sniffing: true", "readTimeout: 10x", 4, &["expected a duration such as 10s"]),
        ("sniffing: true", "readTimeout: 0", 4, &["a wait of zero"]),
        ("sniffing: true", "snifing: true", 4, &["did you mean \"sniffing\"?"]),
        ("host: a.example", "host: a..example", 7, &["empty label"]),
        (
            "host: a.example",
            "matcher: { rule: 'Hots(`a`)' }",
            7,
            &["unknown function \"Hots\", did you mean \"Host\"?"],
        ),
        ("host: a.example", "tls: { secure: true }", 7, &["not supported yet"]),
        (":8080", "8080", 3, &["found \"8080\"", "an address with a port"]),
        ("name: s\n", "name: s\n  name: t\n", 3, &["stands here twice"]),
        ("- name: s\n", "- name: s\n  authers: [x]\n", 3, &["unknown key \"authers\""]),
        ("    nodes:", "    nodes: *x", 6, &[]),
        ("services:", "services: [", 0, &[]),
    ] {
        let Err(Problems(problems)) = load("f.yaml", &GOOD.replace(from, to)) else {
            panic!("{to:?} was taken")
        };
        let shown: String = problems.iter().map(|p| format!("{p}\n")).collect();
        assert!(line == 0 || shown.contains(&format!("--> f.yaml:{line}:")), "{to:?}: {shown}");
        assert!(texts.iter().all(|text| shown.contains(text)), "{to:?}: {shown}");
    }
    assert!(load("f.yaml", GOOD).is_ok());
    assert!(load("f.yaml", "").is_err());
    assert!(load("f.yaml", &"[".repeat(100_000)).is_err());
}

#[test]
fn all_problems_at_once_and_keys_without_case() {
    let text = GOOD.replace("addr: :8080", "ADDR: nowhere").replace("type: tcp", "Type: nothing");
    let Err(Problems(problems)) = load("f.yaml", &text) else { panic!("taken") };
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(load("f.yaml", &GOOD.replace("sniffing", "SNIFFING").replace("services", "Services")).is_ok());
}
