//! HAProxy.

use super::{Contender, Proxy, first_line, installed, part, write};
use crate::process::Part;
use anyhow::Result;
use std::path::Path;

pub(super) struct Haproxy;

impl Contender for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn version(&self) -> Result<String> {
        first_line(&installed("haproxy")?, "-v")
    }

    fn proxy(&self, task: &Proxy, dir: &Path) -> Result<Vec<Part>> {
        let (mode, reuse, key, wait) = if task.tls {
            let wait =
                "  tcp-request inspect-delay 5s\n  tcp-request content accept if { req.ssl_hello_type 1 }\n";
            ("tcp", "", "req.ssl_sni", wait)
        } else {
            // Connections to targets are kept for all visitors, as the others keep theirs.
            ("http", "  http-reuse always\n", "req.hdr(host)", "")
        };
        let (mut choice, mut backends) = (String::new(), String::new());
        for (n, (host, port)) in task.targets.iter().enumerate() {
            choice += &format!("  use_backend b{n} if {{ {key} -i {host} }}\n");
            backends += &format!("backend b{n}\n  server s 127.0.0.1:{port}\n");
        }
        // With the pipes for splicing it wants two and a half times as many open files.
        let text = format!(
            "global
  nbthread 2
  maxconn 1500
defaults
  mode {mode}
{reuse}  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:{}
{wait}{choice}{backends}",
            task.port
        );
        let file = write(dir, "haproxy.cfg", &text)?;
        Ok(vec![part("proxy", &installed("haproxy")?, &[Path::new("-db"), Path::new("-f"), &file])])
    }
}
