//! The visitor whose bad server name ends the real program's connectors.

use super::server;
use crate::support::exchange;
use crate::support::relay::{Peer, client_hello, read_message};
use crate::support::vectors::{capture, text};
use std::io::Write;

#[test]
fn a_bad_server_name_opens_no_stream() {
    let text = text("30");
    let quoted: Vec<_> = text.lines().next().unwrap().split('\'').collect();
    assert_eq!(quoted[1], "srv-0.local:abc");
    let (server, port, visit) = server();
    let mut stream = crate::support::connect(port);
    // The recorded client's own BIND.
    stream.write_all(&capture(&text)[0].bytes).unwrap();
    assert_eq!(read_message(&mut stream).unwrap().0, 0);
    for name in
        [quoted[1], "srv-0.local:443", "srv-0.local:", "srv-0.local\0", "[srv-0.local]", "127.0.0.1", ""]
    {
        let (reply, closed) = exchange(visit, &client_hello(name.as_bytes()));
        assert!(reply.is_empty() && closed, "{name:?}: {reply:?}");
    }
    let mut visitor = crate::support::connect(visit);
    visitor.write_all(b"GET /after HTTP/1.1\r\nHost: srv-0.local\r\n\r\n").unwrap();
    let (id, _) = Peer(stream).accept(b"/after HTTP/1.1\r\nHost: srv-0.local\r\n\r\n");
    assert_eq!(id, 3, "the first stream that was opened");
    assert!(!server.log().contains("connector down"));
}
