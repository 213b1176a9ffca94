//! `plugin call`: one question, its answer, and what the call cost.

use super::question::Question;
use super::{Failure, Form, PluginFile, Report, line, log_json, log_lines, nanos, short, size, unasked};
use crate::plugin::{Again, Outcome};
use anyhow::anyhow;
use clap::Args;
use serde_json::json;
use std::time::Duration;

pub(super) const HELP: &str = "\
Example: pointsman plugin call canary.wasm --host a.example --path /x --header 'cookie: user=ann' \\
           --node old=10.0.0.1:80 --node new=10.0.0.2:80

The time is that of the first call of a new instance; `plugin bench` measures later ones.

Exit status: 0 an answer, 1 the plugin failed, 2 wrong command line.

Keys of --json:
  ok        whether there is an answer
  answer    as `expect` in a decision table: \"pass\", {\"tunnel\": ID}, {\"node\": NAME}, {\"refuse\": STATUS}, {\"allow\": [HOST]}, ...;
            \"error\" when the plugin failed
  reason    what a visitor that is refused is told, or the log of a client that is denied, or null
  error     why the plugin failed, or null
  reuse     {\"ttl_ms\", \"depends_on\": [\"client\", \"path\"]}: permission to give the answer again, or null
  ns        nanoseconds of the call
  memory    bytes of the instance's memory
  log       [{\"level\", \"message\"}]";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    plugin: PluginFile,
    #[command(flatten)]
    question: Question,
    #[command(flatten)]
    pub(super) form: Form,
}

pub(super) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    if arguments.question.is_empty() {
        let help = "no question: give --host NAME, --request FILE or another part of a request";
        return Err(anyhow!("{help}").into());
    }
    let case = arguments.question.case()?;
    let plugin = arguments.plugin.open()?;
    Ok(report(&plugin.ask(&case).map_err(unasked)?))
}

fn report(outcome: &Outcome) -> Report {
    let mut text = line("answer", outcome.got());
    outcome.reason.iter().for_each(|reason| text += &line("reason", reason));
    outcome.reuse.iter().for_each(|reuse| text += &line("reuse", reusable(reuse)));
    text += &line("time", short(outcome.elapsed));
    text += &line("memory", size(outcome.memory));
    text += &log_lines(&outcome.log);
    let json = json!({
        "ok": outcome.failure.is_none(),
        "answer": outcome.answer,
        "reason": outcome.reason,
        "error": outcome.failure,
        "reuse": outcome.reuse,
        "ns": nanos(outcome.elapsed),
        "memory": outcome.memory,
        "log": log_json(&outcome.log),
    });
    Report { ok: outcome.failure.is_none(), text, json }
}

/// For how long and for whom an answer may be given again.
pub(super) fn reusable(reuse: &Again) -> String {
    let same: Vec<_> = reuse.always.iter().chain(&reuse.depends_on).copied().collect();
    let time = short(Duration::from_millis(reuse.ttl_ms.into()));
    format!("for {time}, for requests with the same {}", same.join(" and "))
}
