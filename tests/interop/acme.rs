//! Certificates from a real ACME server, pebble, that looks whether the names are ours.

use crate::support::Program::Ours;
use crate::support::{Proc, curl, eventually, free_port, wait_for_port};
use std::path::{Path, PathBuf};
use std::process::Command;

const HOST: &str = "www.example.com";

/// The ACME server and its DNS server, for which every name is this machine.
struct Pebble {
    _processes: [Proc; 2],
    dir: tempfile::TempDir,
    port: u16,
    management: u16,
}

impl Pebble {
    /// `http`, `tls`: where it looks for the answers; `validity`: of certificates, in seconds.
    fn start(http: u16, tls: u16, validity: u32) -> Self {
        let program = PathBuf::from(std::env::var("PEBBLE").expect("PEBBLE, see the Makefile"));
        let [port, management, dns, dns_management] = [(); 4].map(|()| free_port());
        let dir = tempfile::tempdir().unwrap();
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let cert = file("pebble.crt", &made.cert.pem());
        let key = file("pebble.key", &made.signing_key.serialize_pem());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": cert, "privateKey": key, "httpPort": http, "tlsPort": tls,
            "retryAfter": { "authz": 1, "order": 1 },
            "profiles": { "default": { "description": "the only one", "validityPeriod": validity } },
        }});
        let config = file("config.json", &config.to_string());
        let mut resolver = Command::new(program.with_file_name("pebble-challtestsrv"));
        resolver.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv6", ""]);
        resolver.args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        resolver.args(["-management", &format!("127.0.0.1:{dns_management}")]);
        let resolver = Proc::spawn(resolver, tempfile::tempdir().unwrap());
        let mut server = Command::new(program);
        server.arg("-config").arg(config).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        server.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "5")]);
        let server = Proc::spawn(server, tempfile::tempdir().unwrap());
        [dns_management, port, management].into_iter().for_each(wait_for_port);
        Self { _processes: [resolver, server], dir, port, management }
    }

    /// The `acme` of a handler.
    fn settings(&self, more: &str) -> String {
        let [ca, storage] = ["pebble.crt", "storage"].map(|name| self.path(name));
        format!(
            "{{ hosts: [{HOST}], directory: 'https://127.0.0.1:{}/dir', storage: '{}', caFile: '{}', {more} }}",
            self.port,
            storage.display(),
            ca.display()
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The certificate that signs those that it issues.
    fn root(&self) -> PathBuf {
        let path = self.path("root.pem");
        let url = format!("https://127.0.0.1:{}/roots/0", self.management);
        let done = Command::new("curl").args(["-sk", "--max-time", "20", &url, "-o"]).arg(&path).status();
        assert!(done.unwrap().success());
        path
    }
}

/// A reverse proxy on one port for both HTTP and HTTPS.
fn proxy(port: u16, acme: &str) -> Proc {
    let mirror = free_port();
    let proxy = Ours.start(&format!(
        "services:
- name: front
  addr: 127.0.0.1:{port}
  handler:
    type: tcp
    tls: {{ redirect: {port}, acme: {acme} }}
    metadata: {{ sniffing: true }}
  forwarder: {{ nodes: [{{ name: mirror, addr: '127.0.0.1:{mirror}' }}] }}
- name: mirror
  addr: 127.0.0.1:{mirror}
  handler: {{ type: whoami }}
"
    ));
    [port, mirror].into_iter().for_each(wait_for_port);
    proxy
}

fn ask(port: u16, ca: &Path) -> u16 {
    curl(HOST, port, "/", &["--cacert", &ca.display().to_string()]).0
}

#[test]
fn a_certificate_is_had_by_either_challenge_and_kept() {
    for challenge in ["tls-alpn-01", "http-01"] {
        let port = free_port();
        let pebble = Pebble::start(port, port, 86_400);
        let settings = pebble.settings(&format!("challenge: {challenge}, email: admin@example.com"));
        let first = proxy(port, &settings);
        first.wait_for(&["certificate issued"]);
        let seen = first.log();
        assert!(seen.contains("acme_challenge"), "{challenge}: {seen}");
        let root = pebble.root();
        assert_eq!(ask(port, &root), 200);
        assert_eq!(curl(HOST, port, "/x", &[]).0, 308);
        // What nobody waits for is the target's.
        assert_eq!(curl("other.example.com", port, "/.well-known/acme-challenge/x", &[]).0, 200);
        drop(first);
        let second = proxy(port, &settings);
        assert_eq!(ask(port, &root), 200);
        assert!(!second.log().contains("certificate issued"), "{}", second.log());
    }
}

#[test]
fn where_one_challenge_fails_the_other_is_tried() {
    let (port, closed) = (free_port(), free_port());
    let pebble = Pebble::start(port, closed, 86_400);
    let proxy = proxy(port, &pebble.settings(""));
    let line = proxy.wait_for(&["no certificate", "tls-alpn-01 failed"]);
    assert!(line.contains("does the name lead here"), "{line}");
    proxy.wait_for(&["certificate issued"]);
    assert_eq!(ask(port, &pebble.root()), 200);
}

#[test]
fn certificates_are_renewed_before_they_end() {
    let port = free_port();
    let pebble = Pebble::start(port, port, 9);
    let proxy = proxy(port, &pebble.settings(""));
    eventually("a second one", || (proxy.log().matches("certificate issued").count() > 1).then_some(()));
    assert_eq!(ask(port, &pebble.root()), 200);
}

#[test]
fn before_there_is_a_certificate_nobody_is_served_in_the_clear() {
    let port = free_port();
    let acme = format!(
        "{{ hosts: [{HOST}], directory: 'https://127.0.0.1:{}/dir', storage: '{}' }}",
        free_port(),
        "acme"
    );
    let proxy = proxy(port, &acme);
    proxy.wait_for(&["no certificate", "again_in=1"]);
    assert_eq!(curl(HOST, port, "/", &["--cacert", "/dev/null"]).0, 0);
    proxy.wait_for(&["outcome=\"no_certificate\"", "an earlier line says why"]);
    assert_eq!(curl(HOST, port, "/", &[]).0, 308);
    assert_eq!(curl("other.example.com", port, "/", &[]).0, 200);
}
