//! pointsman itself, as `make bench` builds it.

use super::{Answers, Contender, Plugins, Proxy, Routing, Tunnel, first_line, named, part, write, yaml};
use crate::process::Part;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// All to the first target, by a cookie that nobody sends, so that no answer can be used twice.
const BY_COOKIE: &str = "percent: 100\nlabel: side=0\ncookie: user\n";

pub(super) struct Pointsman;

impl Contender for Pointsman {
    fn name(&self) -> &'static str {
        "pointsman"
    }

    fn version(&self) -> Result<String> {
        let revision = std::env::var("REVISION").unwrap_or_default();
        Ok(format!("{} {revision}", first_line(&program(), "--version")?))
    }

    fn proxy(&self, task: &Proxy, dir: &Path) -> Result<Vec<Part>> {
        Ok(vec![run("proxy", dir, "proxy.yaml", &yaml::proxy(task))?])
    }

    fn tunnel(&self, task: &Tunnel, dir: &Path) -> Result<Vec<Part>> {
        let server = match task.routing {
            Routing::Rules => yaml::server(task, &yaml::rules(task)),
            Routing::Plugin { answers, .. } => plugin(task, answers, dir)?,
        };
        let mut parts = vec![run("server", dir, "server.yaml", &server)?];
        for (n, target) in task.targets.iter().enumerate() {
            parts.push(run("client", dir, &format!("client-{n}.yaml"), &yaml::client(task, *target))?);
        }
        Ok(parts)
    }

    fn keeps_answers(&self) -> bool {
        true
    }
}

fn program() -> PathBuf {
    let other = std::env::var_os("POINTSMAN").filter(|path| !path.is_empty());
    other.map_or_else(|| env!("CARGO_BIN_EXE_pointsman").into(), PathBuf::from)
}

fn run(role: &'static str, dir: &Path, name: &str, text: &str) -> Result<Part> {
    let file = write(dir, name, text)?;
    Ok(part(role, &program(), &[Path::new("-C"), &file]))
}

/// `yaml-ingress` as WebAssembly with the same rules, which allows its answers to be given again.
fn plugin(task: &Tunnel, answers: Answers, dir: &Path) -> Result<String> {
    let built = named("PLUGINS")?.join("yaml-ingress.wasm");
    let folder = dir.join("plugins.d");
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(&built, folder.join("yaml-ingress.wasm"))
        .with_context(|| format!("\"{}\"", built.display()))?;
    let mut rules = String::new();
    for (index, hosts) in task.tunnels.iter().enumerate() {
        let id = Tunnel::id(index);
        for host in hosts {
            writeln!(rules, "{host} {id}")?;
        }
    }
    write(&folder, "yaml-ingress.yaml", &rules)?;
    let limits = match answers {
        // With room for one answer, none is there for the next host.
        Answers::Once => ", limits: { cachedDecisions: 1 }",
        Answers::Again => "",
    };
    let plugins = format!("plugins: {{ dir: '{}'{limits} }}\n", folder.display());
    Ok(plugins + &yaml::server(task, "  rules: []\n"))
}

/// Many services with a plugin each. All plugins are `canary`, but to pointsman each is another: their files differ.
pub(crate) fn plugins(task: &Plugins, dir: &Path) -> Result<Vec<Part>> {
    let file = named("PLUGINS")?.join("canary.wasm");
    let built = std::fs::read(&file).with_context(|| format!("\"{}\"", file.display()))?;
    let folder = dir.join("plugins.d");
    std::fs::create_dir_all(&folder)?;
    let node = |(n, port)| {
        format!("{{ name: t{n}, addr: '127.0.0.1:{port}', metadata: {{ labels: {{ side: {n} }} }} }}")
    };
    let nodes = task.targets.iter().enumerate().map(node).collect::<Vec<_>>().join(", ");
    let mut services = String::new();
    for (n, port) in task.ports.iter().enumerate() {
        std::fs::write(folder.join(format!("canary-{n}.wasm")), marked(&built, n))?;
        std::fs::write(folder.join(format!("canary-{n}.yaml")), BY_COOKIE)?;
        write!(
            services,
            "- name: s{n}
  addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true, http.keepalive: true }} }}
  listener: {{ type: tcp }}
  forwarder: {{ nodes: [{nodes}], plugin: {{ type: wasm, name: canary-{n} }} }}
"
        )?;
    }
    let (folder, cache) = (folder.display(), task.cache.display());
    let head = format!("plugins: {{ dir: '{folder}', cache: '{cache}' }}\nlog: {{ level: error }}\n");
    Ok(vec![run("proxy", dir, "proxy.yaml", &format!("{head}services:\n{services}"))?])
}

/// The component with a number in a section that says nothing to WebAssembly: its length, the length of its name, the name.
fn marked(component: &[u8], number: usize) -> Vec<u8> {
    let name = format!("n{number:03}");
    let name = name.as_bytes();
    [component, &[0, name.len() as u8 + 1, name.len() as u8], name].concat()
}
