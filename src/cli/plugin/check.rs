//! `plugin check`: what the proxy would find in a file.

use super::{Failure, Form, PluginFile, Report, line, size};
use crate::plugin::{Folder, Inspection, Workbench};
use clap::Args;
use serde_json::json;
use std::path::Path;

pub(super) const HELP: &str = "\
Exit status: 0 ok, 1 a problem was found, 2 wrong command line.

Keys of --json:
  ok          whether there are no problems
  file, size  the file and its bytes
  version     hash of the bytes, as in logs and status
  kinds       \"ingress\", \"forwarder\", \"admission\": what the plugin decides
  wrapped     whether it is a core module, of which a component is made when it is loaded
  imports, exports   names of interfaces
  denied      functions of WASI that it imports and that fail when they are called
  config      the configuration file it was given, or null
  problems    why the proxy would not take it
  warnings    what the proxy would take, and you may not have meant";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    plugin: PluginFile,
    #[command(flatten)]
    pub(super) form: Form,
}

pub(super) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let plugin = &arguments.plugin;
    let (code, config, runtime) = (plugin.code()?, plugin.config()?, plugin.runtime()?);
    let found = runtime.inspect(&code);
    let problem = match &found.problem {
        Some(problem) => Some(problem.to_string()),
        // What is wrong with it shows when it runs.
        None => Workbench::new(&runtime, &plugin.name(), &code, &config).err().map(|e| e.to_string()),
    };
    Ok(report(plugin, &found, problem))
}

fn report(plugin: &PluginFile, found: &Inspection, problem: Option<String>) -> Report {
    let file = plugin.file.display();
    let config = plugin.config_file().map(|file| file.display().to_string());
    let kinds = found.roles.kinds();
    let unread = config.as_ref().filter(|_| !kinds.is_empty() && !found.roles.lifecycle);
    let unread = unread.map(|file| format!("{file} is not read: the plugin does not export lifecycle"));
    let warnings: Vec<_> = unread.into_iter().chain(not_taken(&plugin.file)).collect();

    let state = if problem.is_none() { "ok" } else { "not ok" };
    let kind = if found.wrapped { " (a core module: made into a component when it is loaded)" } else { "" };
    let mut text = format!("{file}: {state}\n");
    text += &line("version", found.version);
    text += &line("size", format!("{}{kind}", size(found.size)));
    text += &line("decides", if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(" and ") });
    text += &line("config", config.as_deref().unwrap_or("none"));
    for (what, names) in [("exports", &found.exports), ("imports", &found.imports), ("denied", &found.denied)]
    {
        names.iter().for_each(|name| text += &line(what, name));
    }
    warnings.iter().for_each(|warning| text += &line("warning", warning));
    problem.iter().for_each(|problem| text += &line("problem", problem));

    let json = json!({
        "ok": problem.is_none(),
        "file": file.to_string(),
        "size": found.size,
        "version": found.version.to_string(),
        "kinds": kinds,
        "wrapped": found.wrapped,
        "imports": found.imports,
        "exports": found.exports,
        "denied": found.denied,
        "config": config,
        "problems": problem.iter().collect::<Vec<_>>(),
        "warnings": warnings,
    });
    Report { ok: problem.is_none(), text, json }
}

/// What the watched folder would say to the file's name.
fn not_taken(file: &Path) -> Option<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let is_taken = name.strip_suffix(".wasm").is_some_and(Folder::takes);
    let expected = "NAME.wasm, with letters, digits, dot, dash and underscore, and no dot in front";
    (!is_taken).then(|| format!("a plugin folder does not take a file called {name}: {expected}"))
}
