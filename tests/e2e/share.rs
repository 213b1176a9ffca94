//! Connections to nodes that wait for requests: who may use one that another visitor has used.

use crate::support::Program::Ours;
use crate::support::{Proc, curl, free_port, wait_for_port};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A node that counts its connections and answers each request with the number of its own; what it was asked.
struct Counting {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Counting {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, heads) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<_>>>::default());
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            let count = AtomicUsize::new(0);
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::spawn(answer(stream, number, Arc::clone(&seen)));
            }
        });
        Self { port, heads }
    }

    fn last_head(&self) -> String {
        self.heads.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

async fn answer(stream: TcpStream, number: usize, seen: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
            // A PROXY header stands before the first request only.
            if head.starts_with("PROXY ") {
                head.clear();
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        stream.read_exact(&mut vec![0; length.unwrap_or(0)]).await?;
        let challenge = if head.contains("/ntlm") { "WWW-Authenticate: NTLM\r\n" } else { "" };
        let status = if challenge.is_empty() { "200 OK" } else { "401 No" };
        let body = if head.starts_with("HEAD") { String::new() } else { number.to_string() };
        seen.lock().unwrap().push(head);
        let reply = format!(
            "HTTP/1.1 {status}\r\n{challenge}Content-Length: {}\r\n\r\n{body}",
            number.to_string().len()
        );
        stream.write_all(reply.as_bytes()).await?;
    }
}

/// A reverse proxy before nodes, as written; its port.
fn proxy(metadata: &str, nodes: &str) -> (Proc, u16) {
    let port = free_port();
    let proxy = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true{metadata} }} }}
  forwarder: {{ nodes: [{nodes}] }}
"
    ));
    wait_for_port(port);
    (proxy, port)
}

/// The connection that answers a new visitor's request.
fn ask(port: u16, path: &str, more: &[&str]) -> String {
    curl("a.example", port, path, more).1
}

#[tokio::test(flavor = "multi_thread")]
async fn visitors_share_connections_unless_told_not_to() {
    for (metadata, expected, passes) in
        [("", ["1", "1", "1"], false), (", http.shareUpstreams: false", ["1", "2", "3"], true)]
    {
        let node = Counting::start().await;
        let (_proxy, port) = proxy(metadata, &format!("{{ name: n, addr: '127.0.0.1:{}' }}", node.port));
        let answers = [(), (), ()].map(|()| ask(port, "/", &["-H", "Connection: close"]));
        assert_eq!(answers, expected, "{metadata}");
        assert_eq!(node.last_head().contains("Connection: close"), passes, "{metadata}");
        let shown = ask(port, "/", &["-i", "-H", "Connection: close"]);
        assert_eq!(shown.contains("Connection: close"), !passes, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_one_visitors_own_is_not_shared() {
    let node = Counting::start().await;
    let addr = format!("addr: '127.0.0.1:{}'", node.port);
    let (_told, told) = proxy(", proxyProtocol: 1", &format!("{{ name: n, {addr} }}"));
    assert_eq!([ask(told, "/", &[]), ask(told, "/", &[])], ["1", "2"], "the node was told who comes");

    let (_proxy, port) = proxy("", &format!("{{ name: n, {addr} }}"));
    assert_eq!([ask(port, "/ntlm", &[]), ask(port, "/", &[])], ["3", "4"], "behind a challenge");
    let head = ask(port, "/", &["--head"]);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(ask(port, "/", &[]), "5", "behind a reply that might bring a body after all");
    let post = ["--data", "x"];
    assert_eq!([ask(port, "/", &post), ask(port, "/", &[])], ["6", "6"], "for what cannot be repeated");
}

/// They may be told apart by more than their names: by their TLS, for one.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_name_share_nothing() {
    let node = Counting::start().await;
    let entry = |path| format!("{{ name: n, addr: '127.0.0.1:{}', filter: {{ path: {path} }} }}", node.port);
    let (_proxy, port) = proxy("", &format!("{}, {}", entry("/a"), entry("/b")));
    assert_eq!(["/a", "/b", "/a", "/b"].map(|path| ask(port, path, &[])), ["1", "2", "1", "2"]);
}
