//! The rules of an ingress: those of the configuration, and those of lists that are read anew when they change.

use crate::config;
use crate::lines::{self, Listed, Lists, Place, Stamp};
use crate::route::ingress::{NotTwoColumns, Problem, Rule, Rules, Table, numbered_lines};
use crate::shutdown::Shutdown;
use crate::source::{self, FirstLook};
use anyhow::{Context, Result};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::warn;

/// Rules without an effect that are told one by one: a list may hold a hundred thousand.
const MAX_TOLD: usize = 10;
/// Longest part of an entry that names it.
const MAX_SHOWN: usize = 80;

/// Reads the file, if there is one, and follows it and the other lists until `shutdown`. `looks` grows by those that are not read
/// when this returns.
pub(super) fn rules(
    ingress: &config::Ingress,
    shutdown: &Shutdown,
    looks: &mut Vec<FirstLook>,
) -> Result<Rules> {
    let hosts = Arc::new(Hosts::new(ingress));
    if let Some(file) = &ingress.file {
        let stamp = Stamp::of(&file.path);
        hosts.read(file)?;
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

/// Reads the file, if there is one, and says what is wrong with it.
pub(super) fn check(ingress: &config::Ingress) -> Result<()> {
    ingress.file.as_ref().map_or(Ok(()), |file| Hosts::new(ingress).read(file))
}

/// Where the rules of one ingress come together. Those of a list stand in place of those of the configuration for the same host.
struct Hosts {
    ingress: String,
    inline: Vec<Rule>,
    lists: Mutex<Lists<Rule>>,
    rules: Rules,
}

impl Hosts {
    /// Those of the configuration.
    fn new(ingress: &config::Ingress) -> Self {
        Self {
            ingress: ingress.name.clone(),
            inline: ingress.rules.clone(),
            lists: Mutex::default(),
            // What is wrong in a rule was said when the configuration was checked.
            rules: Arc::clone(&ingress.table).into(),
        }
    }

    /// Takes what the file says.
    fn read(&self, file: &lines::Settings) -> Result<()> {
        let own = || file.path.display().to_string();
        let text = lines::read(&file.path).with_context(own)?;
        self.apply(Place::File, &Listed::Text(text)).map_err(anyhow::Error::msg).with_context(own)?;
        Ok(())
    }

    /// Takes what a list says, in place of what it said before; how many rules that is. With an entry that is wrong none of it is
    /// taken, and neither is the end of a list without a word: that is how a server looks that has lost it.
    fn apply(&self, place: Place, listed: &Listed) -> Result<usize, String> {
        let rules = rules_of(listed)?;
        let idle = self.check(place, listed, &rules)?;
        let count = rules.len() - idle;
        // Held to the end: of two lists that change at once none may be lost.
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.is_blank() && !lists.is_empty(place) {
            return Err(gone(place, listed).to_owned());
        }
        lists.replace(place, rules);
        self.rules.replace(Table::new(&lists.all(&self.inline)).0);
        Ok(count)
    }

    /// How many of the rules have no effect, which a warning tells; `Err`: an entry is wrong.
    fn check(&self, place: Place, listed: &Listed, rules: &[Rule]) -> Result<usize, String> {
        let (_, problems) = Table::new(rules);
        let (idle, wrong): (Vec<_>, Vec<_>) = problems.into_iter().partition(|p| rules[p.index()].is_star());
        if let Some(first) = wrong.first() {
            let more = match wrong.len() - 1 {
                0 => String::new(),
                more => format!("; {more} more are wrong"),
            };
            return Err(format!("{}: {}{more}", entry(listed, first.index()), explain(first)));
        }
        for problem in idle.iter().take(MAX_TOLD) {
            warn!(ingress = self.ingress, from = ?place, %problem, "a listed rule has no effect");
        }
        if let Some(more) = idle.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
            warn!(ingress = self.ingress, from = ?place, more, "more listed rules have no effect");
        }
        Ok(idle.len())
    }
}

fn rules_of(listed: &Listed) -> Result<Vec<Rule>, String> {
    match listed {
        Listed::Text(text) => {
            let told = |NotTwoColumns(number)| {
                format!("{}: expected two columns, a host name and a tunnel ID", line(text, number))
            };
            numbered_lines(text).map(|line| line.map(|(_, rule)| rule).map_err(told)).collect()
        }
        Listed::Pairs(_) => Ok(fields(listed).map(rule).collect()),
    }
}

/// Fields and values without comments, whose fields begin with a `#`.
fn fields(listed: &Listed) -> impl Iterator<Item = &(String, String)> {
    let pairs: &[_] = if let Listed::Pairs(pairs) = listed { pairs } else { &[] };
    pairs.iter().filter(|(field, _)| !field.trim_start().starts_with('#'))
}

fn rule((hostname, endpoint): &(String, String)) -> Rule {
    Rule { hostname: hostname.trim().to_owned(), endpoint: endpoint.trim().to_owned() }
}

/// What the rule at that index is called, for whoever has to mend it.
fn entry(listed: &Listed, index: usize) -> String {
    match listed {
        Listed::Text(text) => {
            let numbers = numbered_lines(text).filter_map(|line| line.ok().map(|(number, _)| number));
            numbers.into_iter().nth(index).map(|number| line(text, number)).unwrap_or_default()
        }
        Listed::Pairs(_) => {
            fields(listed).nth(index).map(|(field, _)| format!("field {}", shown(field))).unwrap_or_default()
        }
    }
}

/// A line by its number and its first word: the lines of a set in Redis have no numbers.
fn line(text: &str, number: usize) -> String {
    let word = text.lines().nth(number - 1).and_then(|line| line.split_whitespace().next());
    format!("line {number}, {}", shown(word.unwrap_or_default()))
}

/// A bounded part of a text that is not ours.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(MAX_SHOWN).collect::<String>())
}

fn explain(problem: &Problem) -> String {
    match problem {
        Problem::Hostname { reason, .. } => format!("no host: {reason}"),
        Problem::Endpoint { .. } => "no tunnel ID behind it (a UUID, or $ and a UUID)".to_owned(),
    }
}

/// A list that was there and is not.
fn gone(place: Place, listed: &Listed) -> &'static str {
    match (place, listed) {
        (Place::Redis, Listed::Pairs(_)) => {
            "nothing is there any more, which counts as a failure; a field # takes all rules away"
        }
        (Place::Redis, Listed::Text(_)) => {
            "nothing is there any more, which counts as a failure; a member # takes all rules away"
        }
        _ => "it is empty, which counts as a failure; a line with a # takes all rules away",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";

    fn hosts() -> Hosts {
        let rules = Table::new(&[]).0.into();
        Hosts { ingress: "i".to_owned(), inline: Vec::new(), lists: Mutex::default(), rules }
    }

    fn text(text: &str) -> Listed {
        Listed::Text(text.replace("ID", ID))
    }

    fn pairs(list: &[(&str, &str)]) -> Listed {
        Listed::Pairs(list.iter().map(|(a, b)| ((*a).to_owned(), b.replace("ID", ID))).collect())
    }

    fn is_known(hosts: &Hosts, host: &str) -> bool {
        let lists = hosts.lists.lock().unwrap();
        Table::new(&lists.all(&[])).0.lookup(host).is_some()
    }

    #[test]
    fn one_wrong_entry_is_named_and_nothing_is_taken() {
        let hosts = hosts();
        assert_eq!(hosts.apply(Place::Http, &text("old.host ID")), Ok(1));
        for (place, listed, told) in [
            (
                Place::Http,
                text("\n# x\nnew.host ID\nbad.host 7\nworse host\n"),
                "line 4, \"bad.host\": no tunnel ID",
            ),
            (Place::File, text("new.host ID\na..b ID"), "line 2, \"a..b\": no host"),
            (Place::Http, text("new.host ID\nshort # x\n"), "line 2, \"short\": expected two columns"),
            (
                Place::Redis,
                pairs(&[("#", ""), ("bad.host", ""), ("new.host", "ID")]),
                "field \"bad.host\": no tunnel ID",
            ),
            (
                Place::Redis,
                pairs(&[("a b", "ID"), ("new.host", "ID"), ("c d", "1")]),
                "field \"a b\": no host: ",
            ),
        ] {
            let error = hosts.apply(place, &listed).unwrap_err();
            assert!(error.starts_with(told), "{error}");
            assert!(is_known(&hosts, "old.host") && !is_known(&hosts, "new.host"), "{told}");
        }
        let several = hosts.apply(Place::Redis, &pairs(&[("a", "1"), ("b", "2"), ("c", "3")])).unwrap_err();
        assert!(several.ends_with("; 2 more are wrong"), "{several}");
    }

    /// In GOST, too, it is taken and never matches.
    #[test]
    fn a_star_alone_does_not_count() {
        assert_eq!(hosts().apply(Place::File, &text("* ID\na.host ID\n")), Ok(1));
    }

    #[test]
    fn a_list_that_is_empty_has_to_say_so() {
        let empty = [("", "# none"), ("\u{feff} \n", "\n#\n")].map(|(a, b)| (text(a), text(b)));
        let hash = (pairs(&[]), pairs(&[("#", "none")]));
        for ((blank, explicit), place) in
            empty.iter().chain([&hash]).zip([Place::File, Place::Http, Place::Redis])
        {
            let hosts = hosts();
            assert_eq!(hosts.apply(place, blank), Ok(0), "nothing was there before");
            assert_eq!(hosts.apply(place, &text("a.host ID")), Ok(1));
            assert!(hosts.apply(place, blank).unwrap_err().contains("counts as a failure"));
            assert!(is_known(&hosts, "a.host"));
            assert_eq!(hosts.apply(place, explicit), Ok(0));
            assert!(!is_known(&hosts, "a.host"));
            assert_eq!(hosts.apply(place, blank), Ok(0));
        }
    }
}
