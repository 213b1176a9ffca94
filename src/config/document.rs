//! Documents as one, and that as text: what `-O` prints.
//!
//! Read again, the text is the same configuration. Comments, anchors and the places of things are gone, and so are quotes
//! that nothing asks for.

use super::nodes::View;
use super::problem::Collector;
use super::tree::{Key, Tree, Value};
use std::path::Path;

/// What the text of a configuration is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// Most digits of a number that is written without quotes: every reader of JSON keeps those.
const MAX_DIGITS: usize = 15;
/// Texts that one version of YAML or another takes for something else.
const NO_TEXT: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
/// Keys whose values are texts, whatever they look like.
const TEXTS: &[&str] = &["name", "username", "password"];

/// All documents as one text: lists are joined, and of other sections the last counts, as when they are read.
pub(crate) fn print(documents: &[View<'_>], problems: &Collector<'_>, format: Format) -> String {
    let mut sections: Vec<(Key, Tree)> = Vec::new();
    for document in documents {
        let mut tree = document.tree();
        settle_paths(&mut tree, "", problems);
        let Value::Map(entries) = tree.value else { continue };
        for (key, tree) in entries {
            match sections.iter_mut().find(|(known, _)| known.text.eq_ignore_ascii_case(&key.text)) {
                Some((_, known)) => join(known, tree),
                None => sections.push((key, tree)),
            }
        }
    }
    let mut text = String::new();
    match format {
        Format::Yaml if sections.is_empty() => text.push_str("{}"),
        Format::Yaml => yaml_map(&sections, 0, &mut text),
        Format::Json => json(&Value::Map(sections), "", 0, &mut text),
    }
    text.push('\n');
    text
}

fn join(known: &mut Tree, new: Tree) {
    match (&mut known.value, new.value) {
        (_, Value::Scalar(None)) => {}
        (Value::List(items), Value::List(more)) => items.extend(more),
        (value, new) => *value = new,
    }
}

/// Paths of plugins count from the folder of their file, which the text no longer has.
fn settle_paths(tree: &mut Tree, around: &str, problems: &Collector<'_>) {
    match &mut tree.value {
        Value::List(items) => items.iter_mut().for_each(|item| settle_paths(item, around, problems)),
        Value::Map(entries) => {
            let names: &[&str] = match around {
                "plugins" => &["dir", "cache"],
                "plugin" if is_wasm(entries) => &["path", "addr"],
                _ => &[],
            };
            for (key, value) in entries {
                let key = key.text.to_ascii_lowercase();
                let base = problems.file(value.at).map(Path::new).and_then(Path::parent);
                if let (Value::Scalar(Some(path)), Some(base)) = (&mut value.value, base)
                    && names.contains(&&*key)
                {
                    *path = base.join(&*path).display().to_string();
                }
                settle_paths(value, &key, problems);
            }
        }
        Value::Scalar(_) => {}
    }
}

/// Whether a plugin is a file; one that is a process has an address of another kind.
fn is_wasm(plugin: &[(Key, Tree)]) -> bool {
    let is = |tree: &Tree| matches!(&tree.value, Value::Scalar(Some(kind)) if kind.trim().eq_ignore_ascii_case("wasm"));
    plugin.iter().any(|(key, value)| key.text.eq_ignore_ascii_case("type") && is(value))
}

fn indented(depth: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// The entries of a mapping, the first of which stands where the text has come to.
fn yaml_map(entries: &[(Key, Tree)], depth: usize, out: &mut String) {
    for (i, (key, tree)) in entries.iter().enumerate() {
        if i > 0 {
            indented(depth, out);
        }
        out.push_str(&yaml_text(&key.text, ""));
        out.push(':');
        match &tree.value {
            Value::Map(entries) if !entries.is_empty() => {
                indented(depth + 1, out);
                yaml_map(entries, depth + 1, out);
            }
            Value::List(items) if !items.is_empty() => yaml_list(items, &key.text, depth, out),
            value => {
                out.push(' ');
                yaml_leaf(value, &key.text, out);
            }
        }
    }
}

fn yaml_list(items: &[Tree], key: &str, depth: usize, out: &mut String) {
    for tree in items {
        indented(depth, out);
        out.push('-');
        match &tree.value {
            Value::Map(entries) if !entries.is_empty() => {
                out.push(' ');
                yaml_map(entries, depth + 1, out);
            }
            Value::List(items) if !items.is_empty() => yaml_list(items, key, depth + 1, out),
            value => {
                out.push(' ');
                yaml_leaf(value, key, out);
            }
        }
    }
}

/// A value without parts.
fn yaml_leaf(value: &Value, key: &str, out: &mut String) {
    match value {
        Value::Map(_) => out.push_str("{}"),
        Value::List(_) => out.push_str("[]"),
        Value::Scalar(None) => out.push_str("null"),
        Value::Scalar(Some(text)) => out.push_str(&yaml_text(text, key)),
    }
}

/// A text without quotes where every reader takes it for what it is, else in quotes.
fn yaml_text(text: &str, key: &str) -> String {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | '+');
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_'))
        && text.chars().all(inner)
        && !NO_TEXT.iter().any(|word| text.eq_ignore_ascii_case(word));
    if plain || is_bare(text, key) {
        return text.to_owned();
    }
    let odd = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    if text.contains(odd) { quoted(text) } else { format!("'{}'", text.replace('\'', "''")) }
}

/// In double quotes, as both YAML and JSON have them, with escapes for all that is not printable.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether a text is a number, `true` or `false`, and may be one under this key.
fn is_bare(text: &str, key: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let number = (1..=MAX_DIGITS).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (!digits.starts_with('0') || text == "0");
    (number || matches!(text, "true" | "false")) && !TEXTS.iter().any(|name| key.eq_ignore_ascii_case(name))
}

fn json(value: &Value, key: &str, depth: usize, out: &mut String) {
    match value {
        Value::Scalar(None) => out.push_str("null"),
        Value::Scalar(Some(text)) if is_bare(text, key) => out.push_str(text),
        Value::Scalar(Some(text)) => out.push_str(&quoted(text)),
        Value::Map(entries) if entries.is_empty() => out.push_str("{}"),
        Value::List(items) if items.is_empty() => out.push_str("[]"),
        Value::Map(entries) => {
            let parts = entries.iter().map(|(key, tree)| (Some(&*key.text), tree));
            json_parts(['{', '}'], parts, key, depth, out);
        }
        Value::List(items) => {
            json_parts(['[', ']'], items.iter().map(|tree| (None, tree)), key, depth, out);
        }
    }
}

fn json_parts<'t>(
    [open, close]: [char; 2],
    parts: impl Iterator<Item = (Option<&'t str>, &'t Tree)>,
    around: &str,
    depth: usize,
    out: &mut String,
) {
    out.push(open);
    for (i, (key, tree)) in parts.enumerate() {
        if i > 0 {
            out.push(',');
        }
        indented(depth + 1, out);
        if let Some(key) = key {
            out.push_str(&quoted(key));
            out.push_str(": ");
        }
        json(&tree.value, key.unwrap_or(around), depth + 1, out);
    }
    indented(depth, out);
    out.push(close);
}

#[cfg(test)]
mod tests {
    use super::super::nodes::Document;
    use super::super::{Shorthand, Source, file, load, print};
    use super::*;
    use proptest::prelude::*;

    fn source(name: &str, text: impl Into<String>) -> Source {
        Source { name: name.to_owned(), text: text.into() }
    }

    fn printed(sources: &[Source], format: Format) -> String {
        print(sources, &Shorthand::default(), format).unwrap().text
    }

    #[test]
    fn as_people_write_it() {
        let text = "Services:\n- {addr: ':1', NAME: '7', handler: {type: whoami, metadata: {}}, listener: {type: ws, metadata: {header: {a: '0123', b: \"x\\ty\", c: it's, d: 'NO', e: 1.5}}}}\n---\nlog: {level: warn}\n";
        let more = "services: []\nauthers: [{name: a, auths: [{username: u, password: 123}, {username: v, password: 'true'}]}]\nlog: {format: json}\nplugins: {}\ntls:\n";
        let sources = [source("a/f.yaml", text), source("b/g.yaml", more)];
        let yaml = "Services:
- addr: ':1'
  NAME: '7'
  handler:
    type: whoami
    metadata: {}
  listener:
    type: ws
    metadata:
      header:
        a: '0123'
        b: \"x\\u0009y\"
        c: 'it''s'
        d: 'NO'
        e: '1.5'
log:
  format: json
authers:
- name: a
  auths:
  - username: u
    password: '123'
  - username: v
    password: 'true'
plugins: {}
tls: null
";
        assert_eq!(printed(&sources, Format::Yaml), yaml);
        let json = printed(&sources, Format::Json);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["Services"][0]["listener"]["metadata"]["header"]["b"], "x\ty");
        assert_eq!(printed(&[source("", json)], Format::Yaml), yaml);
    }

    #[test]
    fn paths_of_plugins_keep_their_folder() {
        let text = "plugins: {dir: p.d, cache: /c}\nservices: [{addr: ':1', handler: {type: tunnel, metadata: {ingress: i}}}]\n\
                    ingresses: [{name: i, plugin: {type: wasm, path: x.wasm}, file: {path: z}, rules: []}]\n";
        let yaml = printed(&[source("etc/f.yaml", text)], Format::Yaml);
        for line in ["  dir: etc/p.d\n", "  cache: /c\n", "    path: etc/x.wasm\n", "    path: z\n"] {
            assert!(yaml.contains(line), "{line}: {yaml}");
        }
        assert_eq!(printed(&[source("<stdin>", &*yaml)], Format::Yaml), yaml);
    }

    /// Every example says the same again.
    #[test]
    fn examples_are_the_same_again() {
        let mut checked = 0;
        for folder in ["config", "tests/data/config/good"] {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.extension().is_none_or(|ending| ending != "yaml") {
                    continue;
                }
                let first = [source(path.to_str().unwrap(), std::fs::read_to_string(&path).unwrap())];
                for format in [Format::Yaml, Format::Json] {
                    let again = [source("<stdin>", printed(&first, format))];
                    assert_eq!(said(&first), said(&again), "{}", path.display());
                }
                checked += 1;
            }
        }
        assert!(checked >= 10, "{checked}");
    }

    /// A configuration, without the order of its maps and the tunnel IDs that are new every time.
    fn said(sources: &[Source]) -> Vec<String> {
        let text = format!("{:#?}", load(sources).unwrap().config);
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.retain(|line| !line.trim_start().starts_with("id: "));
        lines.sort();
        lines
    }

    proptest! {
        #[test]
        fn any_text(text in "(\\PC|[\u{0}-\u{ff}\u{2028}\u{feff}]|[ :#'\"\\\\,\\[{}&*!|>%@~-]|[a-z0-9]){0,12}", key in "[a-z]{1,5}") {
            for format in [Format::Yaml, Format::Json] {
                let written = format!("{key}: {}\n", quoted(&text));
                let documents = file::parse(&written, 0).unwrap().documents;
                let again = print_one(&documents, format);
                let read = file::parse(&again, 0).unwrap().documents;
                prop_assert_eq!(print_one(&read, Format::Json), print_one(&documents, Format::Json));
                let Value::Map(entries) = read[0].root().tree().value else { panic!("{again}") };
                let Value::Scalar(found) = &entries[0].1.value else { panic!("{again}") };
                prop_assert_eq!(found.as_deref(), Some(&*text));
            }
        }
    }

    fn print_one(documents: &[Document<'_>], format: Format) -> String {
        super::print(&[documents[0].root()], &Collector::new(Vec::new()), format)
    }
}
