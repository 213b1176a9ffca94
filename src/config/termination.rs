//! `tls` of a handler: certificates for what its visitors ask for.

use super::channels::{checked, options, pair, texts};
use super::reader::{Bare, Field, Map};
use super::settings::{HANDSHAKE_TIMEOUT, word};
use crate::acme;
use crate::addr::Host;
use crate::channel::tls::{Pair, by_name};
use crate::route::hop::NodeSettings;
use crate::route::hosts::HostPattern;
use crate::terminate::{Certificate, Settings};
use http::Uri;
use rustix::fs::{Access, access};
use std::path::{Path, PathBuf};

const HTTPS: u16 = 443;
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

pub(crate) fn read(handler: &Map<'_>) -> Option<Settings> {
    let field = handler.filled(&["tls"])?;
    let map = field.map()?;
    let list = map.get(&["certificates"]).map(|f| f.list()).unwrap_or_default();
    let short = pair(&map).and_then(|pair| usable(pair, &field));
    let certificates = short.into_iter().chain(list.iter().filter_map(certificate)).collect();
    let options = options(&map);
    let acme = map.filled(&["acme"]).map(|f| acme(&f));
    let settings = Settings {
        certificates,
        acme: acme.clone().flatten(),
        options: options.clone().unwrap_or_default(),
        redirect: map.filled(&["redirect"]).and_then(|f| redirect(&f)),
        handshake_timeout: map
            .filled(&["handshakeTimeout"])
            .and_then(|f| f.wait(Bare::Nanoseconds))
            .unwrap_or(HANDSHAKE_TIMEOUT),
    };
    let no_files = list.is_empty() && ["certFile", "keyFile"].iter().all(|key| map.get(&[key]).is_none());
    if no_files && acme.is_none() {
        let help = "expected certificates: [{ certFile: FILE, keyFile: FILE }], or acme: { hosts: [HOST], storage: FOLDER }";
        map.error("no certificates".to_owned(), help);
    }
    map.finish(&[], &["caFile"]);
    options?;
    checked(settings.check(), &field)?;
    Some(settings)
}

fn certificate(field: &Field<'_>) -> Option<Certificate> {
    let map = field.map()?;
    let pair = pair(&map);
    if pair.is_none() && map.get(&["certFile"]).is_none() && map.get(&["keyFile"]).is_none() {
        map.error("certificate without files".to_owned(), "expected { certFile: FILE, keyFile: FILE }");
    }
    map.finish(&[], &[]);
    usable(pair?, field)
}

fn usable(pair: Pair, field: &Field<'_>) -> Option<Certificate> {
    checked(by_name::names_in(&pair).map(drop), field)?;
    Some(Certificate { pair, place: field.path() })
}

fn acme(field: &Field<'_>) -> Option<acme::Settings> {
    let map = field.map()?;
    let names = map.filled(&["hosts"]).map(|f| texts(&f)).unwrap_or_default();
    let hosts: Vec<_> = names.iter().filter_map(|name| acme_host(&map, name)).collect();
    if names.is_empty() {
        map.error("no hosts".to_owned(), "expected hosts: [www.example.com], each of which leads here");
    }
    let storage = map.filled(&["storage"]);
    if storage.is_none() {
        map.error("no folder for certificates".to_owned(), "expected storage: /var/lib/pointsman/acme");
    }
    let storage = storage.and_then(|f| folder(&f));
    let challenge = map.filled(&["challenge"]).and_then(|f| word(&f, &["http-01", "tls-alpn-01"]));
    let settings = acme::Settings {
        hosts,
        email: map.text(&["email"]).map(|email| email.trim().to_owned()),
        directory: directory(&map),
        storage: storage.clone().unwrap_or_default(),
        ca: map.text(&["caFile"]).map(Into::into),
        challenge: challenge.map(|word| match word {
            "http-01" => acme::Challenge::Http01,
            _ => acme::Challenge::TlsAlpn01,
        }),
    };
    map.finish(&[], &[]);
    (storage.is_some() && !settings.hosts.is_empty()).then_some(settings)
}

/// A folder that can be written to, or made; it is not made here.
fn folder(field: &Field<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(field.text()?);
    let help = "expected a folder that this user may write to, or one that can be made in such a folder";
    // Where it is not there yet, what matters is the nearest folder above it; a relative path begins in the current one.
    let here = path.ancestors().map(|above| if above == Path::new("") { Path::new(".") } else { above });
    let Some((there, found)) = here.filter_map(|above| Some((above, above.metadata().ok()?))).next() else {
        return Some(path);
    };
    if !found.is_dir() {
        field.error(format!("{there:?} is no folder"), help);
    } else if let Err(error) = access(there, Access::WRITE_OK | Access::EXEC_OK) {
        field.error(format!("no file can be made in {there:?}: {error}"), help);
    }
    Some(path)
}

fn acme_host(map: &Map<'_>, name: &str) -> Option<Host> {
    let host = Host::parse(name).ok().filter(|host| host.ip().is_none() && host.as_str().contains('.'));
    if host.is_none() {
        let help =
            "expected a whole name such as www.example.com; wildcards and addresses cannot be had this way";
        map.error(format!("{name:?} is no host that a certificate could be had for"), help);
    }
    host
}

/// The URL of the ACME server.
fn directory(map: &Map<'_>) -> String {
    let Some(field) = map.filled(&["directory"]) else { return LETS_ENCRYPT.to_owned() };
    let url = field.text().unwrap_or_default().trim();
    if !url.starts_with("https://") || url.parse::<Uri>().is_err() {
        field.error(format!("{url:?} is no URL of an ACME server"), format!("expected {LETS_ENCRYPT}"));
    }
    url.to_owned()
}

/// `true`, or the port of HTTPS where that is another one.
fn redirect(field: &Field<'_>) -> Option<u16> {
    if let Ok(port) = field.text()?.trim().parse::<u16>()
        && port > 1
    {
        return Some(port);
    }
    let text = field.text()?.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) && !matches!(text, "0" | "1") {
        field.error(format!("{text} is no port"), "expected true, false, or a port from 2 to 65535");
        return None;
    }
    field.bool()?.then_some(HTTPS)
}

/// Warns of a node for TLS with hosts for which it ends before it gets there. `ended`: the names in the certificates.
pub(crate) fn warn_of_node(field: &Field<'_>, node: &NodeSettings, ended: &[Box<str>]) {
    let Ok(Some(pattern)) = HostPattern::from_filter(&node.host) else { return };
    let ends = |name: &str| match &pattern {
        HostPattern::Exact(host) => stands_for(name, host.as_str()),
        // What else is within may have no certificate.
        HostPattern::Within(_) | HostPattern::Below(_) => name.strip_prefix("*.") == Some(pattern.name()),
    };
    let is_meant = node.protocol == "tls" && node.rule.is_none();
    if let Some(name) = ended.iter().find(|name| is_meant && ends(name)) {
        let message = format!(
            "TLS to {pattern} ends at handler.tls, by the certificate for {name}: none of it comes to this node"
        );
        let help = "give a certificate without that name, or leave protocol out to have what is inside";
        field.warn(message, help);
    }
}

/// A wildcard stands for one label.
fn stands_for(name: &str, host: &str) -> bool {
    let below = || Some(host.split_once('.')?.1 == name.strip_prefix("*.")?);
    name == host || below() == Some(true)
}
