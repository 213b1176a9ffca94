//! A tunnel server with a plugin at its door.

use super::{Proc, auth};
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
    let folder = dir.join("plugins.d");
    fs::create_dir_all(&folder).unwrap();
    let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
    let plugins = format!(
        "plugins: {{ dir: '{}', cache: '{}', limits: {{ deadline: 50ms }} }}\n",
        folder.display(),
        dir.join("cache").display()
    );
    auth::tunnel_server(&keys, metadata, &plugins)
}
