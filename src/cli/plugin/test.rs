//! `plugin test`: the questions of a decision table, and what is not answered as expected.

use super::{Failure, Form, PluginFile, Report, log_json, log_lines, text};
use crate::plugin::{Cases, Outcome, Workbench};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

pub(super) const HELP: &str = "\
A table that stands beside the plugin as NAME.cases.yaml is also asked by the proxy before it takes the plugin into use.

Exit status: 0 all cases hold, 1 some do not or the plugin does not start, 2 wrong command line.

Keys of --json:
  ok, cases, failed   whether all hold, how many there are, how many do not hold
  failures            [{\"line\", \"host\", \"expected\", \"got\", \"log\": [{\"level\", \"message\"}]}]; expected and got as written
                      in a table, or `error: TEXT`; host with user and tunnel in front for a client that opens one";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    plugin: PluginFile,
    /// The decision table [default: NAME.cases.yaml beside the plugin]
    cases: Option<PathBuf>,
    #[command(flatten)]
    pub(super) form: Form,
}

/// A case that does not hold.
struct Failed {
    line: u64,
    host: String,
    expected: String,
    outcome: Outcome,
}

pub(super) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let plugin = &arguments.plugin;
    let file = arguments.cases.clone().unwrap_or_else(|| plugin.file.with_extension("cases.yaml"));
    let in_table = |error: String| Failure::Plugin(format!("{}: {error}", file.display()));
    let cases = Cases::parse(&text(&file)?).map_err(in_table)?;
    let config = match (&plugin.config, &cases.config) {
        (None, Some(config)) => config.clone(),
        _ => plugin.config()?,
    };
    let workbench = Workbench::new(&plugin.runtime()?, &plugin.name(), &plugin.code()?, &config)?;
    let mut failed = Vec::new();
    for (line, case) in cases.iter() {
        let asked = workbench.ask(case);
        let outcome = asked.map_err(|e| in_table(format!("the case in line {line}: {e}")))?;
        if let Some(expected) = outcome.expected.clone() {
            failed.push(Failed { line, host: case.about(), expected, outcome });
        }
    }
    let (all, holding) = (cases.iter().len(), cases.iter().len() - failed.len());
    let mut text: String = failed.iter().map(|failed| failed.text(&file.display().to_string())).collect();
    text += &format!("{holding} of {all} cases hold\n");
    let failures: Vec<_> = failed.iter().map(Failed::json).collect();
    let ok = failed.is_empty();
    let json = json!({ "ok": ok, "cases": all, "failed": failures.len(), "failures": failures });
    Ok(Report { ok, text, json })
}

impl Failed {
    fn text(&self, file: &str) -> String {
        let Self { line, host, expected, outcome } = self;
        let (got, log) = (outcome.got(), log_lines(&outcome.log));
        format!("{file}:{line}: {host}\n- {expected}\n+ {got}\n{log}\n")
    }

    fn json(&self) -> Value {
        json!({
            "line": self.line,
            "host": self.host,
            "expected": self.expected,
            "got": self.outcome.got(),
            "log": log_json(&self.outcome.log),
        })
    }
}
