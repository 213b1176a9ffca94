//! A real nginx behind the reverse proxy and behind the tunnel.

use crate::support::Program::Ours;
use crate::support::backend::{pattern, pattern_sum};
use crate::support::matrix::TUNNEL;
use crate::support::{Proc, connect, free_port, wait_for_port};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

const HOST: &str = "nginx.local";
const SIZE: usize = 50 << 20;
const TEXT: &str = "the same line again and again\n";

/// nginx with a big file, a text that it may compress, and a place for uploads; its port.
fn nginx() -> (Proc, u16) {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let site = dir.path().join("site");
    std::fs::create_dir(&site).unwrap();
    std::fs::write(site.join("big"), pattern(0, SIZE)).unwrap();
    std::fs::write(site.join("text.txt"), TEXT.repeat(1000)).unwrap();
    let config = dir.path().join("nginx.conf");
    std::fs::write(&config, configuration(dir.path(), port)).unwrap();
    // Debian keeps it where not every user looks.
    let path = std::env::var("PATH").unwrap() + ":/usr/sbin";
    let mut command = Command::new("nginx");
    command.env("PATH", path).arg("-p").arg(dir.path()).arg("-c").arg(config).args(["-e", "stderr"]);
    let nginx = Proc::spawn(command, dir);
    wait_for_port(port);
    (nginx, port)
}

fn configuration(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "daemon off;
master_process off;
error_log stderr;
pid {dir}/pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path {dir}/bodies;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  gzip on;
  gzip_types text/plain;
  types {{ text/plain txt; }}
  server {{
    listen 127.0.0.1:{port};
    root {dir}/site;
    location /number/ {{ return 200 $uri\\n; }}
    location /upload {{
      client_max_body_size {SIZE};
      client_body_in_file_only on;
      proxy_pass_request_body off;
      proxy_set_header Content-Length '';
      proxy_set_header Expect '';
      proxy_pass http://127.0.0.1:{port}/number/stored;
    }}
  }}
}}
"
    )
}

/// A reverse proxy and an entrypoint in front of it, by what they are.
fn fronts(target: u16) -> (Proc, [(&'static str, u16); 2]) {
    let (proxy, tunnel, visit) = (free_port(), free_port(), free_port());
    let nodes = format!("[{{ name: nginx, addr: '127.0.0.1:{target}', host: {HOST} }}]");
    let process = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{proxy}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: {nodes} }}
- addr: 127.0.0.1:{tunnel}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', tunnel: '{HOST}:{TUNNEL}' }} }}
- addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: {nodes} }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{tunnel}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}] }}]
"
    ));
    process.wait_for(&["connected"]);
    wait_for_port(proxy);
    wait_for_port(visit);
    (process, [("reverse proxy", proxy), ("tunnel", visit)])
}

/// The real curl; what it wrote to standard output and to standard error.
fn curl(port: u16, paths: &[&str], options: &[&str]) -> (Vec<u8>, String) {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "60", "--resolve", &format!("{HOST}:{port}:127.0.0.1")])
        .args(options)
        .args(paths.iter().map(|path| format!("http://{HOST}:{port}{path}")))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    (output.stdout, errors)
}

/// The head of the answer, and the body.
fn answer(port: u16, path: &str, options: &[&str]) -> (String, Vec<u8>) {
    let (mut output, _) = curl(port, &[path], &[&["-i"], options].concat());
    let end = output.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let body = output.split_off(end);
    (String::from_utf8(output).unwrap(), body)
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let named = |line: &'a str| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name));
    head.lines().find_map(named).unwrap_or_else(|| panic!("no {name} in {head}")).1
}

#[test]
fn nginx_is_served_as_it_answers() {
    let (nginx, target) = nginx();
    let (_process, fronts) = fronts(target);
    for (front, port) in fronts {
        println!("{front}");
        whole_and_in_part(port);
        kept_alive(port);
        compressed_when_asked(port);
        without_body(port);
        uploaded(port, &nginx);
        pipelined(port);
    }
}

fn whole_and_in_part(port: u16) {
    let (head, body) = answer(port, "/big", &[]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!((body.len(), crc32fast::hash(&body)), (SIZE, pattern_sum(SIZE)));
    for (range, from, to) in
        [("1000000-2000000", 1_000_000, 2_000_001), ("-100", SIZE - 100, SIZE), ("0-0", 0, 1)]
    {
        let (head, part) = answer(port, "/big", &["-r", range]);
        assert!(head.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{head}");
        assert_eq!(field(&head, "Content-Range"), format!("bytes {from}-{}/{SIZE}", to - 1));
        assert!(part == body[from..to], "{range}");
    }
    let (head, several) = answer(port, "/big", &["-r", "0-9,1000-1009"]);
    let boundary = field(&head, "Content-Type").split_once("boundary=").unwrap().1;
    assert_eq!(several.windows(boundary.len()).filter(|w| *w == boundary.as_bytes()).count(), 3);
    let (head, _) = answer(port, "/big", &["-r", &format!("{SIZE}-")]);
    assert!(head.starts_with("HTTP/1.1 416 "), "{head}");
}

fn kept_alive(port: u16) {
    let paths = ["/number/1", "/text.txt", "/none", "/number/2"];
    let (output, _) = curl(port, &paths, &["-w", "\n%{http_code} %{num_connects}\n"]);
    let output = String::from_utf8(output).unwrap();
    let counts: Vec<_> = output.lines().filter(|line| line.len() == 5 && line.is_ascii()).collect();
    assert_eq!(counts, ["200 1", "200 0", "404 0", "200 0"], "connections made for each");
}

fn compressed_when_asked(port: u16) {
    let (head, plain) = answer(port, "/text.txt", &[]);
    assert!(!head.contains("gzip") && plain == TEXT.repeat(1000).as_bytes(), "{head}");
    let (head, raw) = answer(port, "/text.txt", &["-H", "Accept-Encoding: gzip"]);
    assert_eq!(field(&head, "Content-Encoding"), "gzip");
    assert!(raw.starts_with(b"\x1f\x8b") && raw.len() < plain.len() / 10, "{} bytes", raw.len());
    assert!(curl(port, &["/text.txt"], &["--compressed"]).0 == plain);
}

fn without_body(port: u16) {
    let (output, _) = curl(port, &["/big", "/big"], &["-I", "-w", "%{num_connects}\n"]);
    let text = String::from_utf8(output).unwrap();
    assert_eq!(text.matches(&format!("Content-Length: {SIZE}\r\n")).count(), 2, "{text}");
    assert!(text.ends_with("\r\n\r\n0\n"), "on one connection: {text}");
    let head = text.split("\r\n\r\n").next().unwrap();
    let since = format!("If-Modified-Since: {}", field(head, "Last-Modified"));
    let tag = format!("If-None-Match: {}", field(head, "ETag"));
    for condition in [since, tag] {
        let (head, body) = answer(port, "/big", &["-H", &condition]);
        assert!(head.starts_with("HTTP/1.1 304 Not Modified\r\n") && body.is_empty(), "{head}");
    }
}

fn uploaded(port: u16, nginx: &Proc) {
    let file = nginx.dir().join("upload");
    let content = pattern(7, SIZE / 2);
    std::fs::write(&file, &content).unwrap();
    let options =
        ["-v", "-H", "Expect: 100-continue", "--expect100-timeout", "30", "-T", file.to_str().unwrap()];
    for chunked in [false, true] {
        let more: &[&str] = if chunked { &["-H", "Transfer-Encoding: chunked"] } else { &[] };
        let (output, log) = curl(port, &["/upload"], &[&options[..], more].concat());
        assert!(log.contains("< HTTP/1.1 100 Continue"), "{log}");
        assert_eq!(output, b"/number/stored\n");
        let stored: Vec<_> =
            std::fs::read_dir(nginx.dir().join("bodies")).unwrap().map(|e| e.unwrap().path()).collect();
        let [stored] = &stored[..] else { panic!("{stored:?}") };
        assert!(std::fs::read(stored).unwrap() == content, "chunked: {chunked}");
        std::fs::remove_file(stored).unwrap();
    }
    // One byte too many is refused at once, while the rest is on its way.
    std::fs::write(&file, pattern(0, SIZE + 1)).unwrap();
    let (head, _) = answer(port, "/upload", &["-H", "Expect:", "-T", file.to_str().unwrap()]);
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
}

fn pipelined(port: u16) {
    let mut visitor = connect(port);
    let request = |i| format!("GET /number/{i} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let requests: String = (0..100).map(request).collect();
    visitor.write_all(requests.as_bytes()).unwrap();
    visitor
        .write_all(format!("GET /text.txt HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut replies = String::new();
    visitor.read_to_string(&mut replies).unwrap();
    let order: Vec<_> = replies.lines().filter_map(|line| line.strip_prefix("/number/")).collect();
    assert!(order.iter().map(|n| n.parse::<usize>().unwrap()).eq(0..100), "{order:?}");
    assert!(replies.ends_with(&TEXT.repeat(1000)));
}
