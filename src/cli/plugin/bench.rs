//! `plugin bench`: what calls and starts cost on this machine.

use super::call::reusable;
use super::question::Question;
use super::{Failure, Form, PluginFile, Report, line, nanos, short, size, unasked};
use crate::plugin::{Case, Outcome, Pace, Start, Workbench};
use clap::Args;
use serde_json::json;
use std::time::Duration;

pub(super) const HELP: &str = "\
A call is measured as the proxy makes it, on one core and with a warm instance: from the question to the checked answer. The
decision cache is left out; what it saves is told beside it, if the plugin's answer may be given again. What the plugin logs is
not shown.

Exit status: 0 measured, 1 the plugin failed, 2 wrong command line.

Keys of --json:
  ok                 whether most calls were answered
  answer, reuse      as for `plugin call`
  calls, failed      how many were made, and how many of them failed
  call_ns            {\"min\", \"median\", \"p99\", \"max\"}: nanoseconds of a call
  calls_per_second   of one core
  cached_ns          median of an answer from the decision cache, or null
  memory             bytes of the instance's memory
  compile_ns         from the file to machine code
  cached_load_ns     the same from the folder with compiled code, or null where that cannot be written
  instance_ns        median of a new, configured instance";

/// The longest run; nothing is learnt from more.
const MAX_SECONDS: f64 = 600.0;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    plugin: PluginFile,
    #[command(flatten)]
    question: Question,
    /// For about how long; compiling a large plugin may take longer
    #[arg(long, default_value = "2", value_parser = seconds)]
    seconds: Duration,
    #[command(flatten)]
    pub(super) form: Form,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=MAX_SECONDS).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("expected a number from 0.01 to {MAX_SECONDS}"))
}

pub(super) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let (plugin, code) = (&arguments.plugin, arguments.plugin.code()?);
    let workbench = Workbench::new(&plugin.runtime()?, &plugin.name(), &code, &plugin.config()?)?;
    let case = question(&arguments.question, &workbench)?;
    let outcome = workbench.ask(&case).map_err(unasked)?;
    let pace = workbench.pace(&case, arguments.seconds / 2).map_err(unasked)?;
    let start = workbench.start(&code, arguments.seconds / 2)?;
    Ok(report(&outcome, &pace, &start))
}

/// What was asked for, or the shortest question that the plugin answers.
fn question(asked: &Question, workbench: &Workbench) -> Result<Case, Failure> {
    if !asked.is_empty() {
        return asked.case();
    }
    let roles = workbench.roles();
    let more = if roles.ingress {
        None
    } else if roles.forwarder {
        Some(("nodes", json!([{ "name": "a" }, { "name": "b" }])))
    } else {
        Some(("tunnel", json!("4d21094e-b74c-4916-86c1-d9fa36ea677b")))
    };
    let keys = [("hostname", json!("a.example"))].into_iter().chain(more);
    let keys = keys.map(|(key, value)| (key.to_owned(), value));
    Case::question(None, keys.collect()).map_err(unasked)
}

fn report(outcome: &Outcome, pace: &Pace, start: &Start) -> Report {
    let at = |nanos: &[u64], percent: usize| nanos[(nanos.len() - 1) * percent / 100];
    let [min, median, p99, max] = [0, 50, 99, 100].map(|percent| at(&pace.nanos, percent));
    let (calls, total) = (pace.nanos.len(), pace.nanos.iter().sum::<u64>());
    let rate = calls as f64 / Duration::from_nanos(total.max(1)).as_secs_f64();
    let cached = pace.cached.as_ref().map(|nanos| at(nanos, 50));
    let time = |nanos| short(Duration::from_nanos(nanos));

    let mut text = line("answer", outcome.got());
    text += &line("call", format!("median {}, p99 {}, of {calls} calls", time(median), time(p99)));
    text += &line("rate", format!("{rate:.0} calls/s on one core"));
    match (cached, &outcome.reuse) {
        (Some(cached), Some(reuse)) => {
            text += &line("reuse", reusable(reuse));
            text += &line("cached", format!("median {}", time(cached)));
        }
        _ => text += &line("cached", "never: the answer may not be given again"),
    }
    text += &line("memory", size(pace.memory));
    text += &line("compile", short(start.compile));
    text += &line("cached load", start.cached_load.map_or_else(|| "no cache folder".to_owned(), short));
    text += &line("instance", format!("{} (new and configured)", short(start.instance)));
    if pace.failed > 0 {
        text += &line("failed", format!("{} of {calls} calls", pace.failed));
    }
    // On a busy machine a call may overrun its deadline now and then.
    let ok = pace.failed < calls.div_ceil(2);
    let json = json!({
        "ok": ok,
        "answer": outcome.answer,
        "reuse": outcome.reuse,
        "calls": calls,
        "failed": pace.failed,
        "call_ns": { "min": min, "median": median, "p99": p99, "max": max },
        "calls_per_second": rate,
        "cached_ns": cached,
        "memory": pace.memory,
        "compile_ns": nanos(start.compile),
        "cached_load_ns": start.cached_load.map(nanos),
        "instance_ns": nanos(start.instance),
    });
    Report { ok, text, json }
}
