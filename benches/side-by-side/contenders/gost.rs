//! GOST: its published library, as `tests/interop/gost-peer` links it.

use super::{Contender, Proxy, Routing, Tunnel, named, part, write, yaml};
use crate::process::Part;
use anyhow::{Context, Result};
use std::path::Path;

pub(super) struct Gost;

impl Contender for Gost {
    fn name(&self) -> &'static str {
        "gost"
    }

    fn version(&self) -> Result<String> {
        named("GOST_PEER")?;
        let modules = include_str!("../../../tests/interop/gost-peer/go.mod");
        let line = modules.lines().find(|line| line.contains("github.com/go-gost/x "));
        Ok(line.context("gost-peer's go.mod does not name the library")?.trim().to_owned())
    }

    fn proxy(&self, task: &Proxy, dir: &Path) -> Result<Vec<Part>> {
        Ok(vec![run("proxy", dir, "proxy.yaml", &yaml::proxy(task))?])
    }

    fn tunnel(&self, task: &Tunnel, dir: &Path) -> Result<Vec<Part>> {
        let ingress = match task.routing {
            Routing::Rules => yaml::rules(task),
            Routing::Plugin { process, .. } => {
                format!("  plugin: {{ type: http, addr: 'http://127.0.0.1:{process}/', timeout: 5s }}\n")
            }
        };
        let mut parts = vec![run("server", dir, "server.yaml", &yaml::server(task, &ingress))?];
        for (n, target) in task.targets.iter().enumerate() {
            parts.push(run("client", dir, &format!("client-{n}.yaml"), &yaml::client(task, *target))?);
        }
        Ok(parts)
    }
}

fn run(role: &'static str, dir: &Path, name: &str, text: &str) -> Result<Part> {
    let file = write(dir, name, text)?;
    Ok(part(role, &named("GOST_PEER")?, &[file]))
}
