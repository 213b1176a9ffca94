//! The rules of an ingress, from a file that changes while visitors come.

use crate::support::Program::Ours;
use crate::support::matrix::TUNNEL;
use crate::support::{Proc, backend, curl, eventually, free_port, read_all, replace};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

fn config(file: &Path, port: u16, visit: u16, web: u16) -> String {
    format!(
        "services:
- name: server
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i }} }}
- name: client
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{web}' }}] }}
ingresses:
- name: i
  rules: [{{ hostname: inline.host, endpoint: {TUNNEL} }}]
  file: {{ path: '{}' }}
chains:
- name: c
  hops:
  - nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}]
",
        file.display()
    )
}

fn status(visit: u16, host: &str) -> u16 {
    curl(host, visit, "/", &[]).0
}

fn becomes(visit: u16, host: &str, expected: u16) {
    eventually(&format!("{expected} for {host}"), || (status(visit, host) == expected).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_counts_at_once_and_a_bad_one_never() {
    let web = backend::http("web").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules");
    replace(&file, &format!("# hosts\nold.host {TUNNEL} # ours\n\n"));
    let (port, visit) = (free_port(), free_port());
    let program: Proc = Ours.start(&config(&file, port, visit, web));
    program.wait_for(&["connected", "connector="]);
    assert_eq!((status(visit, "old.host"), status(visit, "inline.host")), (200, 200));
    assert_eq!(status(visit, "new.host"), 502);

    // A request that began by the old rules ends by them.
    let mut visitor = TcpStream::connect(("127.0.0.1", visit)).unwrap();
    visitor
        .write_all(b"POST / HTTP/1.1\r\nHost: old.host\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab")
        .unwrap();

    replace(&file, &format!("new.host {TUNNEL}\ninline.host ${TUNNEL}\n"));
    becomes(visit, "new.host", 200);
    assert_eq!(status(visit, "old.host"), 502);
    assert_eq!(status(visit, "inline.host"), 502, "the file's rule is private");
    visitor.write_all(b"cd").unwrap();
    assert!(read_all(&mut visitor).0.starts_with("HTTP/1.1 200 "));

    replace(&file, &format!("old.host {TUNNEL}\nnew.host\n"));
    program.wait_for(&["line 2", "what it said before stays"]);
    assert_eq!((status(visit, "old.host"), status(visit, "new.host")), (502, 200));
    std::fs::remove_file(&file).unwrap();
    program.wait_for(&["No such file", "what it said before stays"]);
    assert_eq!(status(visit, "new.host"), 200);

    for (text, told) in [
        (&*format!("old.host {TUNNEL}\nnew.host 7\n"), "line 2, \\\"new.host\\\": no tunnel ID"),
        ("", "it is empty, which counts as a failure; a line with a # takes all rules away"),
    ] {
        replace(&file, text);
        program.wait_for(&[told, "what it said before stays"]);
        assert_eq!((status(visit, "old.host"), status(visit, "new.host")), (502, 200), "{told}");
    }
    replace(&file, "# none\n");
    becomes(visit, "new.host", 502);
    assert_eq!(status(visit, "inline.host"), 200);
}

#[test]
fn nothing_starts_without_its_rules() {
    let dir = tempfile::tempdir().unwrap();
    let [missing, wrong] = ["none", "wrong"].map(|name| dir.path().join(name));
    replace(&wrong, &format!("old.host {TUNNEL}\nnew.host 7\n"));
    for (file, told) in [(missing, "No such file"), (wrong, "line 2, \"new.host\": no tunnel ID")] {
        let program = Ours.start(&config(&file, free_port(), free_port(), free_port()));
        program.wait_for(&["ingress \"i\"", &file.display().to_string(), told]);
    }
}
