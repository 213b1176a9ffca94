//! A contender at work: its programs with their configuration, targets behind them, and doors for visitors.

use crate::backend::{Backend, Identity};
use crate::contenders::{
    Answers, Channel, Contender, Plugins, Proxy, Routing, Tunnel, free_ports, pointsman,
};
use crate::delay::Line;
use crate::process::{Cpu, Part, Process};
use crate::visitor::Door;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Until all that was started answers, a thousand tunnels too.
const START: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// Memory has settled when two looks, so long apart, differ by less than a hundredth; or after so many looks.
const LOOK: Duration = Duration::from_millis(200);
const LOOKS: usize = 15;
/// For one request of those that ask whether the contender is up.
const VISIT: Duration = Duration::from_secs(2);

/// Everything ends when it is dropped.
pub(crate) struct Stage {
    /// A tunnel's server is the first.
    pub(crate) processes: Vec<Process>,
    /// Of a reverse proxy one for each host, of a tunnel server one for each tunnel.
    pub(crate) doors: Vec<Door>,
    /// The tunnel server's port for clients.
    pub(crate) port: u16,
    /// From the start of the first program until its port took connections.
    pub(crate) start: Duration,
    /// The targets; behind those of a tunnel the process that answers for a plugin.
    pub(crate) backends: Vec<Backend>,
    _line: Option<Line>,
    _dir: Option<tempfile::TempDir>,
}

/// What kind of tunnel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) channel: Channel,
    pub(crate) tunnels: usize,
    /// Of each tunnel.
    pub(crate) hosts: usize,
    pub(crate) clients: usize,
    /// Whether a slow line lies between client and server.
    pub(crate) slow: bool,
    /// That a plugin decides instead of rules, and how.
    pub(crate) plugin: Option<Answers>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { channel: Channel::Tcp, tunnels: 1, hosts: 1, clients: 1, slow: false, plugin: None }
    }
}

impl Stage {
    /// A reverse proxy for two hosts.
    pub(crate) async fn proxy(contender: &dyn Contender, tls: bool) -> Result<Self> {
        let names = ["a", "b"];
        let hosts = names.map(|name| format!("{name}.bench.test"));
        let identity = if tls { Some(Identity::generate(&hosts)?) } else { None };
        let mut backends = Vec::new();
        for name in names {
            backends.push(Backend::start(name, identity.as_ref()).await?);
        }
        let targets = hosts.iter().cloned().zip(backends.iter().map(|backend| backend.port)).collect();
        let task = Proxy { tls, port: free_ports(1)?[0], targets };
        let dir = tempfile::tempdir()?;
        let parts = contender.proxy(&task, dir.path())?;
        let door = |(host, name): (String, &'static str)| Door {
            port: task.port,
            hosts: [host].into(),
            targets: [name].into(),
            tls: identity.as_ref().map(|identity| identity.connector.clone()),
        };
        let doors = hosts.into_iter().zip(names).map(door).collect();
        Self::alone(parts, dir, doors, backends).await
    }

    /// A reverse proxy of pointsman's with so many services, each of which asks a plugin of its own about every request.
    pub(crate) async fn plugins(count: usize, cache: &Path) -> Result<Self> {
        let names = ["a", "b"];
        let mut backends = Vec::new();
        for name in names {
            backends.push(Backend::start(name, None).await?);
        }
        let targets = backends.iter().map(|backend| backend.port).collect();
        let task = Plugins { ports: free_ports(count)?, targets, cache: cache.to_owned() };
        let dir = tempfile::tempdir()?;
        let parts = pointsman::plugins(&task, dir.path())?;
        let door = |port: &u16| Door {
            port: *port,
            hosts: ["plugin.bench.test".to_owned()].into(),
            // The plugins have no doubt.
            targets: [names[0]].into(),
            tls: None,
        };
        let doors: Vec<_> = task.ports.iter().map(door).collect();
        Self::alone(parts, dir, doors, backends).await
    }

    /// Starts programs that wait for nothing but their own ports, the first door's first.
    async fn alone(
        parts: Vec<Part>,
        dir: tempfile::TempDir,
        doors: Vec<Door>,
        backends: Vec<Backend>,
    ) -> Result<Self> {
        let port = doors.first().context("no port")?.port;
        let mut stage = Self {
            processes: Vec::new(),
            doors,
            port,
            start: Duration::ZERO,
            backends,
            _line: None,
            _dir: None,
        };
        let began = Instant::now();
        for part in parts {
            stage.processes.push(Process::start(part, dir.path().join("log"))?);
        }
        stage._dir = Some(dir);
        stage.listens().await?;
        stage.start = began.elapsed();
        stage.answers().await?;
        Ok(stage)
    }

    /// A tunnel server and its clients.
    pub(crate) async fn tunnel(contender: &dyn Contender, shape: Shape) -> Result<Self> {
        let names = &["a", "b"][..shape.clients];
        let mut backends = Vec::new();
        for name in names {
            backends.push(Backend::start(name, None).await?);
        }
        let targets = backends.iter().map(|backend| backend.port).collect();
        // Answers for a plugin that is a process.
        let plugin = Backend::start("plugin", None).await?;
        let process = plugin.port;
        let [port, entries @ ..] = &free_ports(1 + shape.tunnels)?[..] else { bail!("no port") };
        let line = if shape.slow { Some(Line::start(*port).await?) } else { None };
        let hosts = |tunnel| (0..shape.hosts).map(|host| format!("h{host}.t{tunnel}.bench.test")).collect();
        let task = Tunnel {
            port: *port,
            reach: line.as_ref().map_or(*port, |line| line.port),
            channel: shape.channel,
            entries: entries.to_vec(),
            tunnels: (0..shape.tunnels).map(hosts).collect(),
            routing: shape.plugin.map_or(Routing::Rules, |answers| Routing::Plugin { process, answers }),
            targets,
        };
        backends.push(plugin);
        let doors = doors(contender, &task, names);
        let (port, start) = (task.port, Duration::ZERO);
        let stage = Self { processes: Vec::new(), doors, port, start, backends, _line: line, _dir: None };
        stage.joined(contender, &task).await
    }

    /// Starts the server, then the clients.
    async fn joined(mut self, contender: &dyn Contender, task: &Tunnel) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let parts = contender.tunnel(task, dir.path())?;
        for (n, part) in parts.into_iter().enumerate() {
            let began = Instant::now();
            self.processes.push(Process::start(part, dir.path().join(format!("log-{n}")))?);
            if n == 0 {
                self.listens().await?;
                self.start = began.elapsed();
            }
        }
        self._dir = Some(dir);
        self.answers().await?;
        Ok(self)
    }

    /// Nothing between the visitor and a target but, if asked for, the slow line.
    pub(crate) async fn direct(slow: bool) -> Result<Self> {
        let backend = Backend::start("a", None).await?;
        let line = if slow { Some(Line::start(backend.port).await?) } else { None };
        let port = line.as_ref().map_or(backend.port, |line| line.port);
        let door =
            Door { port, hosts: ["direct.bench.test".to_owned()].into(), targets: ["a"].into(), tls: None };
        Ok(Self {
            processes: Vec::new(),
            doors: vec![door],
            port,
            start: Duration::ZERO,
            backends: vec![backend],
            _line: line,
            _dir: None,
        })
    }

    /// CPU time of all its programs.
    pub(crate) fn cpu(&self) -> Cpu {
        Cpu::sum(self.processes.iter().map(Process::cpu))
    }

    /// Memory of all its programs, bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.processes.iter().map(Process::memory).sum()
    }

    /// Memory of all its programs, bytes, once it no longer changes.
    pub(crate) async fn settled(&self) -> u64 {
        let mut last = self.memory();
        for _ in 0..LOOKS {
            sleep(LOOK).await;
            let now = self.memory();
            let near = now.abs_diff(last) < now / 100;
            last = now;
            if near {
                break;
            }
        }
        last
    }

    /// Waits until the first program takes connections.
    pub(crate) async fn listens(&mut self) -> Result<()> {
        let end = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            self.processes[0].check()?;
            self.in_time(end, "takes no connections")?;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Waits until every door has let a request through to each of its targets.
    async fn answers(&mut self) -> Result<()> {
        let end = Instant::now() + START;
        for index in 0..self.doors.len() {
            let door = self.doors[index].clone();
            let mut missing = door.targets.to_vec();
            // The last host first: of many rules all are there then.
            let mut number = door.hosts.len() as u64 - 1;
            while !missing.is_empty() {
                match door.visit(number, VISIT).await {
                    Ok(answered) => {
                        missing.retain(|name| *name != answered);
                        number += 1;
                    }
                    Err(error) => {
                        self.processes.iter_mut().try_for_each(Process::check)?;
                        self.in_time(end, "does not answer").with_context(|| format!("{error:#}"))?;
                        sleep(PAUSE).await;
                    }
                }
            }
        }
        Ok(())
    }

    fn in_time(&self, end: Instant, what: &str) -> Result<()> {
        if Instant::now() < end {
            return Ok(());
        }
        let words: Vec<_> = self.processes.iter().map(Process::last_words).collect();
        bail!("{what} after {START:?}; its last words: {}", words.join(" | "))
    }
}

/// One for each tunnel.
fn doors(contender: &dyn Contender, task: &Tunnel, names: &[&'static str]) -> Vec<Door> {
    let door = |(index, hosts): (usize, &Vec<String>)| Door {
        port: contender.entry(task, index),
        hosts: hosts.clone().into(),
        targets: names.into(),
        tls: None,
    };
    task.tunnels.iter().enumerate().map(door).collect()
}
