//! `ingresses[]`: which host belongs to which tunnel.

use super::auth::lines_file;
use super::reader::Field;
use super::{Ingress, IngressPlugin, plugins, source};
use crate::route::hosts::HostPattern;
use crate::route::ingress::{Rule, parse_endpoint};
use crate::source::OnError;

/// `folder`: whether plugins can be taken from a folder by name.
pub(crate) fn read(field: &Field<'_>, folder: bool) -> Option<Ingress> {
    let map = field.map()?;
    let Some(name) = map.text(&["name"]) else {
        map.error("ingress without a name".to_owned(), "expected name: ingress-0");
        return None;
    };
    let rules = map.get(&["rules"]).map(|f| f.list()).unwrap_or_default();
    let rules = rules.iter().filter_map(rule).collect();
    let plugin = map.get(&["plugin"]).and_then(|f| plugin(&f, folder));
    let lists = source::lists(&map);
    let file = lines_file(&map, source::OR_LISTS);
    map.finish(&[], &[]);
    Some(Ingress { name: name.to_owned(), rules, file, lists, plugin })
}

fn plugin(field: &Field<'_>, folder: bool) -> Option<IngressPlugin> {
    if source::is_process(field) {
        let (settings, on_error) = source::process(field, Some(OnError::Next))?;
        return Some(IngressPlugin::Process { settings: Box::new(settings), on_error });
    }
    plugins::binding(field, folder, &["wasm", "grpc", "http"]).map(IngressPlugin::Wasm)
}

fn rule(field: &Field<'_>) -> Option<Rule> {
    let map = field.map()?;
    let (hostname, endpoint) = (map.filled(&["hostname"]), map.filled(&["endpoint"]));
    let (Some(hostname), Some(endpoint)) = (hostname, endpoint) else {
        map.error("incomplete rule".to_owned(), "expected hostname: and endpoint:");
        return None;
    };
    let rule =
        Rule { hostname: hostname.text()?.trim().to_owned(), endpoint: endpoint.text()?.trim().to_owned() };
    if rule.is_star() {
        warn_of_star(&hostname);
    } else if let Err(error) = HostPattern::from_ingress(&rule.hostname) {
        let message = format!("{:?} is no host: {error}", rule.hostname);
        hostname.error(message, "expected example.com or *.example.com, without a port");
    }
    if parse_endpoint(&rule.endpoint).is_none() {
        let message = format!("{:?} is no tunnel ID: this host goes nowhere", rule.endpoint);
        endpoint.warn(message, "expected a UUID, with $ in front for a private tunnel");
    }
    map.finish(&[], &[]);
    Some(rule)
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
