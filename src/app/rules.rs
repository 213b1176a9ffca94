//! The rules of an ingress: those of the configuration, and those of a file that is read anew when it changes.

use crate::config;
use crate::lines::{self, Stamp};
use crate::route::ingress::{Rule, Rules, Table, parse_lines};
use crate::shutdown::Shutdown;
use anyhow::{Context, Result};
use tracing::warn;

/// Reads the file, if there is one, and follows it until `shutdown`.
pub(super) fn rules(ingress: &config::Ingress, shutdown: &Shutdown) -> Result<Rules> {
    let Some(file) = &ingress.file else {
        // What is wrong in a rule was said when the configuration was checked.
        return Ok(Table::new(&ingress.rules).0.into());
    };
    let stamp = Stamp::of(&file.path);
    let text = lines::read(&file.path);
    let (table, own) = (|text: &str| table(&ingress.name, &ingress.rules, text), file.path.display());
    let table = table(&text.with_context(|| own.to_string())?)
        .map_err(anyhow::Error::msg)
        .with_context(|| own.to_string())?;
    let rules = Rules::from(table);
    let (name, inline, current) = (ingress.name.clone(), ingress.rules.clone(), rules.clone());
    let (file, stop) = (file.clone(), shutdown.stop.clone());
    shutdown.tasks.spawn(async move {
        let apply = |text: &str| {
            current.replace(self::table(&name, &inline, text)?);
            Ok(())
        };
        lines::follow(file, stamp, stop, apply).await;
    });
    Ok(rules)
}

/// Rules of a file stand in place of those of the configuration for the same host.
fn table(ingress: &str, inline: &[Rule], text: &str) -> Result<Table, String> {
    let listed = parse_lines(text).map_err(|error| error.to_string())?;
    let (table, problems) = Table::new(&[inline, &listed].concat());
    for problem in problems.iter().filter(|problem| problem.index() >= inline.len()) {
        warn!(ingress, %problem, "rule of the file has no effect");
    }
    Ok(table)
}
