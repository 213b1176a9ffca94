//! The rules of an ingress as a plugin: the built-in default, compiled to WebAssembly from the same source.
//!
//! The configuration is YAML with `rules:` as in `ingresses[]`, or GOST's two-column form, lines `hostname endpoint`.

// The files are the binary's own: what it links natively is what answers here, and its other uses of them are not ours.
#[allow(dead_code, unused_imports, reason = "shared with the binary, which uses more of it")]
#[path = "../../../src/addr/mod.rs"]
mod addr;

#[allow(dead_code, reason = "shared with the binary, which uses more of it")]
mod route;

use exports::pointsman::routing::ingress::{Answer, Request, Verdict};
use exports::pointsman::routing::{ingress, lifecycle};
use pointsman::routing::host::{self, Level};
use pointsman::routing::types::{Dependency, Reuse};
use route::table::{Found, Rule, Table, parse_lines};
use serde::Deserialize;
use std::cell::RefCell;
use uuid::Uuid;

wit_bindgen::generate!({ path: "../../wit/1.0.0", world: "ingress-plugin" });

/// The rules do not change while an instance lives, so an answer holds for as long as the host keeps it.
const FOR_GOOD: Reuse = Reuse { ttl_ms: u32::MAX, depends_on: Dependency::empty() };

thread_local! {
    static TABLE: RefCell<Table> = RefCell::new(Table::new(&[]).0);
}

struct Plugin;
export!(Plugin);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "`rules:` with a list of hostname and endpoint")]
struct Config {
    rules: Option<Vec<Line>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    hostname: String,
    endpoint: String,
}

impl lifecycle::Guest for Plugin {
    fn configure(config: String) -> Result<(), String> {
        let (table, problems) = Table::new(&rules(&config)?);
        for problem in problems {
            host::log(Level::Warn, &format!("rule {}: {problem}", problem.index()));
        }
        TABLE.set(table);
        Ok(())
    }
}

impl ingress::Guest for Plugin {
    fn resolve(request: Request) -> Result<Answer, String> {
        let verdict = TABLE.with_borrow(|table| match table.find(&request.hostname) {
            Some(found) => Verdict::Tunnel(endpoint(&found)),
            None => Verdict::Pass,
        });
        Ok(Answer { verdict, reuse: Some(FOR_GOOD) })
    }
}

/// As in a rule. Every request asks for one, so the usual one is written without the detour of `format!`.
fn endpoint(found: &Found<'_>) -> String {
    let mut buffer = Uuid::encode_buffer();
    let tunnel: &str = found.tunnel.hyphenated().encode_lower(&mut buffer);
    if found.private { format!("${tunnel}") } else { tunnel.to_owned() }
}

fn rules(config: &str) -> Result<Vec<Rule>, String> {
    if !is_yaml(config) {
        return parse_lines(config).map_err(|e| e.to_string());
    }
    // Without the lines around the place: the message becomes one line of a log.
    let options = serde_saphyr::options! { with_snippet: false };
    let config: Option<Config> =
        serde_saphyr::from_str_with_options(config, options).map_err(|e| e.to_string())?;
    let lines = config.and_then(|config| config.rules).unwrap_or_default();
    Ok(lines.into_iter().map(|Line { hostname, endpoint }| Rule { hostname, endpoint }).collect())
}

/// Which form it is, by the first word. In two columns that is a host name, and `2001:db8::` is one, while a key has one colon.
fn is_yaml(config: &str) -> bool {
    let mut lines = config.trim_start_matches('\u{feff}').lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let word = first.and_then(|line| line.split_whitespace().next());
    word.is_none_or(|word| {
        let key = word.ends_with(':') && !word.ends_with("::");
        key || word == "-" || word.starts_with("---") || word.starts_with(['{', '[', '%'])
    })
}
