//! nginx, with its stream module for TLS by server name.

use super::{Contender, Proxy, first_line, installed, part, write};
use crate::process::Part;
use anyhow::Result;
use std::path::Path;

/// Where Debian puts the module; elsewhere it may be built in.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) struct Nginx;

impl Contender for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn version(&self) -> Result<String> {
        first_line(&installed("nginx")?, "-v")
    }

    fn proxy(&self, task: &Proxy, dir: &Path) -> Result<Vec<Part>> {
        let module =
            if Path::new(STREAM).exists() { format!("load_module {STREAM};") } else { String::new() };
        let body = if task.tls { stream(task) } else { http(task, dir) };
        let text = format!(
            "{module}
daemon off;
worker_processes 2;
worker_rlimit_nofile 16384;
error_log stderr crit;
pid {}/pid;
events {{ worker_connections 8192; }}
{body}",
            dir.display()
        );
        let file = write(dir, "nginx.conf", &text)?;
        let arguments = [Path::new("-e"), Path::new("stderr"), Path::new("-p"), dir, Path::new("-c"), &file];
        Ok(vec![part("proxy", &installed("nginx")?, &arguments)])
    }
}

/// Bodies pass without a file in between, connections to the targets are kept.
fn http(task: &Proxy, dir: &Path) -> String {
    let mut text = String::new();
    for (n, (host, port)) in task.targets.iter().enumerate() {
        text += &format!(
            "  upstream u{n} {{ server 127.0.0.1:{port}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{};
    server_name {host};
    location / {{
      proxy_pass http://u{n};
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_set_header Host $host;
      proxy_max_temp_file_size 0;
    }}
  }}
",
            task.port
        );
    }
    let dir = dir.display();
    format!(
        "http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
{text}}}
"
    )
}

fn stream(task: &Proxy) -> String {
    let (mut map, mut upstreams) = (String::new(), String::new());
    for (n, (host, port)) in task.targets.iter().enumerate() {
        map += &format!("    {host} u{n};\n");
        upstreams += &format!("  upstream u{n} {{ server 127.0.0.1:{port}; }}\n");
    }
    format!(
        "stream {{
  map $ssl_preread_server_name $target {{
{map}  }}
{upstreams}  server {{
    listen 127.0.0.1:{};
    ssl_preread on;
    proxy_pass $target;
  }}
}}
",
        task.port
    )
}
