//! The rules of an ingress as a plugin: the built-in default, compiled to WebAssembly from the same source.
//!
//! The configuration is YAML with `rules:` as in `ingresses[]`, or GOST's two-column form, lines `hostname endpoint`.

// The files are the binary's own: what it links natively is what answers here, and its other uses of them are not ours.
#[allow(dead_code, reason = "shared with the binary, which uses more of it")]
#[path = "../../../src/addr.rs"]
mod addr;

#[allow(dead_code, reason = "shared with the binary, which uses more of it")]
mod route;

use exports::pointsman::routing::ingress::{Answer, Request, Verdict};
use exports::pointsman::routing::{ingress, lifecycle};
use pointsman::routing::host::{self, Level};
use pointsman::routing::types::{Dependency, Reuse};
use route::table::{Rule, Table, parse_lines};
use serde::Deserialize;
use std::cell::RefCell;

wit_bindgen::generate!({ path: "../../wit/1.0.0", world: "ingress-plugin" });

/// The rules do not change while an instance lives, so an answer holds for as long as the host keeps it.
const FOR_GOOD: Reuse = Reuse { ttl_ms: u32::MAX, depends_on: Dependency::empty() };

thread_local! {
    static TABLE: RefCell<Table> = RefCell::new(Table::new(&[]).0);
}

struct Plugin;
export!(Plugin);

#[derive(Deserialize)]
struct Config {
    rules: Option<Vec<Line>>,
}

#[derive(Deserialize)]
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
        let endpoint = TABLE.with_borrow(|table| table.lookup(&request.hostname));
        let verdict = endpoint.map_or(Verdict::Pass, |endpoint| {
            let private = if endpoint.private { "$" } else { "" };
            Verdict::Tunnel(format!("{private}{}", endpoint.tunnel))
        });
        Ok(Answer { verdict, reuse: Some(FOR_GOOD) })
    }
}

fn rules(config: &str) -> Result<Vec<Rule>, String> {
    let first = config.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    // A key ends with a colon; the first column of the other form is a host name.
    if first.is_some_and(|line| !line.split_whitespace().next().is_some_and(|word| word.ends_with(':'))) {
        return Ok(parse_lines(config));
    }
    let config: Option<Config> = serde_saphyr::from_str(config).map_err(|e| e.to_string())?;
    let lines = config.and_then(|config| config.rules).unwrap_or_default();
    Ok(lines.into_iter().map(|Line { hostname, endpoint }| Rule { hostname, endpoint }).collect())
}
