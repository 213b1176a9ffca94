//! What a plugin in the path adds to the CPU time of a request through a tunnel, server and client together:
//! `make plugins`, then `PLUGINS=target/plugins cargo bench --bench plugin_in_path`.
//!
//! Two tunnels run side by side, one by 10,000 rules and one by `yaml-ingress` with the same rules and no answer used twice. Rounds
//! of requests over 64 kept connections go to them in turn.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::fmt::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const RULES: usize = 10_000;
const CONNECTIONS: usize = 64;
const REQUESTS: usize = 1_000;
const ROUNDS: usize = 15;
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::main]
async fn main() {
    let backend = backend().await;
    let dir = tempfile::tempdir().unwrap();
    let rules = Tunnel::start(dir.path(), "rules", backend, &rules(), "");
    std::fs::create_dir(dir.path().join("plugins.d")).unwrap();
    let plugins = dir.path().join("plugins.d");
    std::fs::copy(built("yaml-ingress"), plugins.join("yaml-ingress.wasm")).unwrap();
    std::fs::write(plugins.join("yaml-ingress.yaml"), two_columns()).unwrap();
    let folder = format!("plugins: {{ dir: '{}', limits: {{ cachedDecisions: 1 }} }}\n", plugins.display());
    let plugin = Tunnel::start(dir.path(), "plugin", backend, "  rules: []\n", &folder);
    let (mut by_rules, mut by_plugin, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    rules.round().await;
    plugin.round().await;
    for _ in 0..ROUNDS {
        let (a, b) = (rules.round().await, plugin.round().await);
        by_rules.push(a);
        by_plugin.push(b);
        ratios.push(b / a);
    }
    for (name, values, unit) in
        [("rules", by_rules, "us a request"), ("plugin", by_plugin, "us a request"), ("ratio", ratios, "")]
    {
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        let (min, median, max) = (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        println!("{name:8} {median:.3} {unit} ({min:.3} to {max:.3})");
    }
}

/// A server and a client in one process each.
struct Tunnel {
    server: Child,
    client: Child,
    visit: u16,
}

impl Tunnel {
    fn start(dir: &Path, name: &str, backend: u16, ingress: &str, plugins: &str) -> Self {
        let (port, visit) = (free_port(), free_port());
        let server = format!(
            "{plugins}log: {{ level: warn }}
services:
- name: server
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i }} }}
ingresses:
- name: i
{ingress}"
        );
        let client = format!(
            "log: {{ level: warn }}
services:
- name: client
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{backend}' }}] }}
chains:
- name: c
  hops:
  - nodes:
    - {{ name: s, addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}
"
        );
        let run = |part: &str, text: &str| {
            let file = dir.join(format!("{name}-{part}.yaml"));
            std::fs::write(&file, text).unwrap();
            Command::new(env!("CARGO_BIN_EXE_pointsman"))
                .arg("-C")
                .arg(file)
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        Self { server: run("server", &server), client: run("client", &client), visit }
    }

    /// Microseconds of CPU time a request, of server and client.
    async fn round(&self) -> f64 {
        let before = self.cpu();
        let visitors = (0..CONNECTIONS).map(|n| tokio::spawn(visitor(self.visit, n)));
        for visitor in visitors.collect::<Vec<_>>() {
            visitor.await.unwrap();
        }
        (self.cpu() - before).as_secs_f64() * 1e6 / (CONNECTIONS * REQUESTS) as f64
    }

    fn cpu(&self) -> Duration {
        [&self.server, &self.client].into_iter().map(|child| cpu(child.id())).sum()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.client] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Asks again and again over one connection, each time for the next host.
async fn visitor(port: u16, n: usize) {
    let mut stream = connect(port, n).await;
    for i in 0..REQUESTS {
        let request = request(n * REQUESTS + i);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = [0; REPLY.len()];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply, REPLY);
    }
}

/// Waits until the tunnel is up.
async fn connect(port: u16, n: usize) -> TcpStream {
    loop {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
            stream.set_nodelay(true).unwrap();
            stream.write_all(request(n).as_bytes()).await.unwrap();
            let mut reply = [0; REPLY.len()];
            if stream.read_exact(&mut reply).await.is_ok() && reply == REPLY {
                return stream;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn request(i: usize) -> String {
    format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(i * 7919 % RULES))
}

async fn backend() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                let mut buf = [0; 4096];
                while let Ok(1..) = stream.read(&mut buf).await {
                    if stream.write_all(REPLY).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

/// CPU time of a process, of all its threads.
fn cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn built(name: &str) -> PathBuf {
    let dir = std::env::var_os("PLUGINS").map(PathBuf::from);
    dir.expect("PLUGINS names the folder that `make plugins` fills").join(format!("{name}.wasm"))
}

fn host(i: usize) -> String {
    format!("h{i}.example.com")
}

fn rules() -> String {
    (0..RULES).fold("  rules:\n".to_owned(), |mut text, i| {
        writeln!(text, "  - {{ hostname: {}, endpoint: {TUNNEL} }}", host(i)).unwrap();
        text
    })
}

fn two_columns() -> String {
    (0..RULES).fold(String::new(), |mut text, i| {
        writeln!(text, "{} {TUNNEL}", host(i)).unwrap();
        text
    })
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
