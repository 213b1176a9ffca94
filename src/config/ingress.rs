//! `ingresses[]`: which host belongs to which tunnel.

use super::auth::lines_file;
use super::reader::Field;
use super::{Ingress, IngressPlugin, plugins, source};
use crate::route::hosts::HostPattern;
use crate::route::ingress::{Draft, Rule, Wrong, is_star, parse_endpoint};
use crate::source::OnError;
use std::sync::Arc;

/// `folder`: whether plugins can be taken from a folder by name.
pub(crate) fn read(field: &Field<'_>, folder: bool) -> Option<Ingress> {
    let map = field.map()?;
    let Some(name) = map.text(&["name"]) else {
        map.error("ingress without a name".to_owned(), "expected name: ingress-0");
        return None;
    };
    let lists = source::lists(&map);
    let file = lines_file(&map, source::OR_LISTS);
    let fields = map.get(&["rules"]).map(|f| f.list()).unwrap_or_default();
    let (mut draft, mut rules) = (Draft::with_capacity(fields.len()), Vec::new());
    let joined = file.is_some() || !lists.is_empty();
    for (hostname, endpoint) in fields.iter().filter_map(|field| rule(field, &mut draft)) {
        if joined {
            rules.push(Rule { hostname: hostname.to_owned(), endpoint: endpoint.to_owned() });
        }
    }
    let plugin = map.get(&["plugin"]).and_then(|f| plugin(&f, folder));
    map.finish(&[], &[]);
    let table = Arc::new(draft.table());
    Some(Ingress { name: name.to_owned(), table, rules, file, lists, plugin })
}

fn plugin(field: &Field<'_>, folder: bool) -> Option<IngressPlugin> {
    if source::is_process(field) {
        let (settings, on_error) = source::process(field, Some(OnError::Next))?;
        return Some(IngressPlugin::Process { settings: Box::new(settings), on_error });
    }
    plugins::binding(field, folder, &["wasm", "grpc", "http"]).map(IngressPlugin::Wasm)
}

/// Hostname and endpoint of a rule, which is added to the table.
fn rule<'a>(field: &Field<'a>, draft: &mut Draft) -> Option<(&'a str, &'a str)> {
    let map = field.map()?;
    let (hostname, endpoint) = (map.filled(&["hostname"]), map.filled(&["endpoint"]));
    let (Some(hostname), Some(endpoint)) = (hostname, endpoint) else {
        map.error("incomplete rule".to_owned(), "expected hostname: and endpoint:");
        return None;
    };
    let (host, id) = (hostname.text()?.trim(), endpoint.text()?.trim());
    let added = draft.add(host, id);
    if is_star(host) {
        warn_of_star(&hostname);
    } else if let Err(Wrong::Hostname(error)) = &added {
        let message = format!("{host:?} is no host: {error}");
        hostname.error(message, "expected example.com or *.example.com, without a port");
    }
    if added.is_err() && parse_endpoint(id).is_none() {
        let message = format!("{id:?} is no tunnel ID: this host goes nowhere");
        endpoint.warn(message, "expected a UUID, with $ in front for a private tunnel");
    }
    map.finish(&[], &[]);
    Some((host, id))
}

fn warn_of_star(field: &Field<'_>) {
    let help = "name the hosts, *.example.com; there is no rule for all that others leave over";
    field.warn("\"*\" alone is no host, in GOST neither: this rule never matches".to_owned(), help);
}

/// Metadata `tunnel: "host:uuid,host2:uuid2"`.
pub(crate) fn inline_rules(field: &Field<'_>) -> Vec<Rule> {
    let text = field.text().unwrap_or_default();
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let parse = |pair: &str| {
        let (hostname, endpoint) = pair.split_once(':')?;
        parse_endpoint(endpoint)?;
        let rule = Rule { hostname: hostname.trim().to_owned(), endpoint: endpoint.to_owned() };
        if rule.is_star() {
            warn_of_star(field);
        } else {
            HostPattern::from_ingress(&rule.hostname).ok()?;
        }
        Some(rule)
    };
    pairs
        .filter_map(|pair| {
            let rule = parse(pair);
            if rule.is_none() {
                field.error(format!("{pair:?} is no rule"), "expected host:UUID,host:UUID");
            }
            rule
        })
        .collect()
}
