//! A tunnel server with a plugin at its door, and a client that wants in.

use super::matrix::TUNNEL;
use super::{Proc, Program, free_port};
use std::fs;
use std::path::Path;

/// One of `tests/data/guests`, assembled.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    wat::parse_file(format!("tests/data/guests/{name}.wat")).unwrap()
}

/// Puts a plugin into the server's folder in one step.
pub(crate) fn put(dir: &Path, name: &str, code: &[u8]) {
    let folder = dir.join("plugins.d");
    fs::write(folder.join(".new"), code).unwrap();
    fs::rename(folder.join(".new"), folder.join(format!("{name}.wasm"))).unwrap();
}

/// Ours, with a folder of plugins in `dir`; its tunnel port and its entrypoint. `keys`: those of the handler beside its metadata,
/// of which `metadata` is more.
pub(crate) fn tunnel_server(dir: &Path, keys: &str, metadata: &str) -> (Proc, u16, u16) {
    let (port, visit, folder) = (free_port(), free_port(), dir.join("plugins.d"));
    fs::create_dir_all(&folder).unwrap();
    let keys = if keys.is_empty() { String::new() } else { format!("{keys}, ") };
    let server = Program::Ours.start(&format!(
        "plugins: {{ dir: '{}', cache: '{}', limits: {{ deadline: 50ms }} }}
services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, {keys}metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i{metadata} }} }}
  listener: {{ type: tcp }}
ingresses:
- {{ name: i, rules: [{{ hostname: known.host, endpoint: {TUNNEL} }}] }}
",
        folder.display(),
        dir.join("cache").display()
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    (server, port, visit)
}

/// A client of [`TUNNEL`] that asks for the name in `bind`; `auth`: more of its connector.
pub(crate) fn client(port: u16, bind: &str, auth: &str, web: u16) -> String {
    format!(
        "services:
- name: service-0
  addr: {bind}
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{web}' }}] }}
chains:
- name: c
  hops: [{{ name: h, nodes: [{{ name: s, addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }}{auth} }}, dialer: {{ type: tcp }} }}] }}]
"
    )
}
