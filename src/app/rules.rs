//! The rules of an ingress: those of the configuration, and those of lists that are read anew when they change.

use crate::config;
use crate::lines::{self, Listed, Lists, Place, Stamp};
use crate::route::ingress::{Rule, Rules, Table, parse_lines};
use crate::shutdown::Shutdown;
use crate::source::{self, FirstLook};
use anyhow::{Context, Result};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::warn;

/// Rules without an effect that are told one by one: a list may hold a hundred thousand.
const MAX_TOLD: usize = 10;

/// Reads the file, if there is one, and follows it and the other lists until `shutdown`. `looks` grows by those that are not read
/// when this returns.
pub(super) fn rules(
    ingress: &config::Ingress,
    shutdown: &Shutdown,
    looks: &mut Vec<FirstLook>,
) -> Result<Rules> {
    let hosts = Arc::new(Hosts {
        ingress: ingress.name.clone(),
        inline: ingress.rules.clone(),
        lists: Mutex::default(),
        // What is wrong in a rule was said when the configuration was checked.
        rules: Table::new(&ingress.rules).0.into(),
    });
    if let Some(file) = &ingress.file {
        let stamp = Stamp::of(&file.path);
        let own = || file.path.display().to_string();
        let text = lines::read(&file.path).with_context(own)?;
        hosts.apply(Place::File, &Listed::Text(text)).map_err(anyhow::Error::msg).with_context(own)?;
        let (file, stop, hosts) = (file.clone(), shutdown.stop.clone(), Arc::clone(&hosts));
        shutdown.tasks.spawn(async move {
            let apply = |text: &str| hosts.apply(Place::File, &Listed::Text(text.to_owned())).map(drop);
            lines::follow(file, stamp, stop, apply).await;
        });
    }
    for list in &ingress.lists {
        let following = Arc::clone(&hosts);
        let apply = move |place, listed: &Listed| following.apply(place, listed);
        looks.push(source::follow(list.clone(), format!("ingress {:?}", ingress.name), shutdown, apply)?);
    }
    Ok(hosts.rules.clone())
}

/// Where the rules of one ingress come together. Those of a list stand in place of those of the configuration for the same host.
struct Hosts {
    ingress: String,
    inline: Vec<Rule>,
    lists: Mutex<Lists<Rule>>,
    rules: Rules,
}

impl Hosts {
    /// Takes what a list says, in place of what it said before; how many rules that is.
    fn apply(&self, place: Place, listed: &Listed) -> Result<usize, String> {
        let listed = match listed {
            Listed::Text(text) => parse_lines(text).map_err(|error| error.to_string())?,
            Listed::Pairs(pairs) => pairs.iter().map(rule).collect(),
        };
        self.warn_of(place, &listed);
        let count = listed.len();
        // Held to the end: of two lists that change at once none may be lost.
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.replace(place, listed);
        self.rules.replace(Table::new(&lists.all(&self.inline)).0);
        Ok(count)
    }
}

impl Hosts {
    fn warn_of(&self, place: Place, listed: &[Rule]) {
        let (_, problems) = Table::new(listed);
        for problem in problems.iter().take(MAX_TOLD) {
            warn!(ingress = self.ingress, from = ?place, %problem, "a listed rule has no effect");
        }
        if let Some(more) = problems.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
            warn!(ingress = self.ingress, from = ?place, more, "more listed rules have no effect");
        }
    }
}

fn rule((hostname, endpoint): &(String, String)) -> Rule {
    Rule { hostname: hostname.trim().to_owned(), endpoint: endpoint.trim().to_owned() }
}
