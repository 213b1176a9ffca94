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
fn all_problems_at_once_and_keys_without_case() {
    let text = GOOD.replace("addr: :8080", "ADDR: nowhere").replace("type: tcp", "Type: nothing");
    let Err(Problems(problems)) = load("f.yaml", &text) else { panic!("taken") };
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(load("f.yaml", &GOOD.replace("sniffing", "SNIFFING").replace("services", "Services")).is_ok());
}
