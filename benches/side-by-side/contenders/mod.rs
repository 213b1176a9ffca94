//! Who is compared: each contender is one file that turns a task into programs with a configuration.

mod envoy;
mod gost;
mod haproxy;
mod nginx;
pub(crate) mod pointsman;
mod rathole;
mod yaml;

use crate::process::Part;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rows about reverse proxies are run with these; ratios are those of the first to each.
pub(crate) const PROXIES: &[&dyn Contender] =
    &[&pointsman::Pointsman, &nginx::Nginx, &haproxy::Haproxy, &envoy::Envoy, &gost::Gost];
/// Rows about tunnels are run with these.
pub(crate) const TUNNELS: &[&dyn Contender] = &[&pointsman::Pointsman, &gost::Gost, &rathole::Rathole];

/// pointsman, where nothing is compared.
pub(crate) const OURS: &dyn Contender = &pointsman::Pointsman;

/// A program that is compared.
pub(crate) trait Contender: Sync {
    fn name(&self) -> &'static str;

    /// Its version; an error if it is not here.
    fn version(&self) -> Result<String>;

    /// Its files, written into the folder, and what is to be started; an error says why it cannot.
    fn proxy(&self, _task: &Proxy, _dir: &Path) -> Result<Vec<Part>> {
        bail!("is no reverse proxy")
    }

    /// The same: the server first, then the clients.
    fn tunnel(&self, _task: &Tunnel, _dir: &Path) -> Result<Vec<Part>> {
        bail!("is no tunnel")
    }

    /// Whether it can give an answer of a plugin again.
    fn keeps_answers(&self) -> bool {
        false
    }

    /// Where visitors of the tunnel with this index come in.
    fn entry(&self, task: &Tunnel, _tunnel: usize) -> u16 {
        task.entries[0]
    }
}

/// A reverse proxy on one port, HTTP by the host of each request or TLS by its server name.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) tls: bool,
    pub(crate) port: u16,
    pub(crate) targets: Vec<(String, u16)>,
}

/// What lies between server and client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Tcp,
    Tls,
}

/// How often an answer of a plugin is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// The plugin is asked about every request.
    Once,
    /// As often as the plugin allows.
    Again,
}

/// What decides which tunnel a host belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Routing {
    /// A list of hosts.
    Rules,
    /// The contender's own kind of plugin. Those that call a process find it at this port.
    Plugin { process: u16, answers: Answers },
}

/// A tunnel server and its clients.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// Where the server takes its clients.
    pub(crate) port: u16,
    /// Where the clients find it: that port, or a slow line to it.
    pub(crate) reach: u16,
    pub(crate) channel: Channel,
    /// A port for visitors for each tunnel; who routes by host needs only the first.
    pub(crate) entries: Vec<u16>,
    /// The hosts of each tunnel.
    pub(crate) tunnels: Vec<Vec<String>>,
    pub(crate) routing: Routing,
    /// The target of each client; every client serves every tunnel.
    pub(crate) targets: Vec<u16>,
}

impl Tunnel {
    /// What the tunnel with this index is called where that has to be a UUID.
    pub(crate) fn id(index: usize) -> String {
        format!("4d21094e-b74c-4916-86c1-{index:012x}")
    }
}

/// A reverse proxy with many plugins: a service for each, whose only plugin is asked about every request.
#[derive(Debug)]
pub(crate) struct Plugins {
    /// Of each service.
    pub(crate) ports: Vec<u16>,
    /// Between which the plugins choose.
    pub(crate) targets: Vec<u16>,
    /// Where compiled code is kept from one start to the next.
    pub(crate) cache: PathBuf,
}

/// Ports that were free a moment ago, and that nothing takes by chance: they lie below those of outgoing connections.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let bind = |_| TcpListener::bind(("127.0.0.1", fastrand::u16(10_000..32_000))).ok();
    // Held until all are there, so that none comes twice.
    let held: Vec<_> = (0..100 * count).filter_map(bind).take(count).collect();
    ensure!(held.len() == count, "no {count} ports are free");
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// The program that a variable names, which `make bench` sets.
fn named(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let path =
        path.with_context(|| format!("is not here ({variable} is not set; `make bench` installs it)"))?;
    if !path.exists() {
        bail!("is not here (\"{}\" of {variable} does not exist)", path.display());
    }
    Ok(path)
}

/// A program in the search path, or where Debian puts those of administrators.
fn installed(name: &str) -> Result<PathBuf> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(OsString::from(":/usr/sbin"));
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists());
    found.with_context(|| format!("is not here (no {name} in PATH; `make bench` installs it)"))
}

/// The first line that a program prints when asked for its version, without the program itself.
fn first_line(program: &Path, argument: &str) -> Result<String> {
    let text = printed(program, argument)?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    Ok(line.replace(&*program.to_string_lossy(), "").trim().to_owned())
}

/// What a program prints, to either output.
fn printed(program: &Path, argument: &str) -> Result<String> {
    let output =
        Command::new(program).arg(argument).output().with_context(|| program.display().to_string())?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = dir.join(name);
    std::fs::write(&file, text).with_context(|| format!("\"{}\"", file.display()))?;
    Ok(file)
}

/// A part that runs `program` with these arguments.
fn part<A: AsRef<std::ffi::OsStr>>(role: &'static str, program: &Path, arguments: &[A]) -> Part {
    let mut command = Command::new(program);
    command.args(arguments);
    Part { role, command }
}
