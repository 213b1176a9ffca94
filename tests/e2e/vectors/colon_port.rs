//! The relay client that writes `:PORT` as a name with two colons: the real server refuses it, ours opens the port.

use crate::support::Program::Ours;
use crate::support::relay::{loopback, read_message};
use crate::support::vectors::{capture, text};
use crate::support::{connect, free_port, wait_for_port};
use std::io::Write;

#[test]
fn the_recorded_bind_opens_its_port() {
    let port = free_port();
    let _relay = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: relay, metadata: {{ bind: true }} }}
"
    ));
    wait_for_port(port);
    // Of five digits, as in the recording.
    let wanted = free_port();
    let mut request = capture(&text("17"))[0].bytes.clone();
    let at = request.windows(5).position(|w| w == b"18704").unwrap();
    request[at..at + 5].copy_from_slice(wanted.to_string().as_bytes());
    let mut client = connect(port);
    client.write_all(&request).unwrap();
    let mut addr = loopback(wanted);
    addr[4..8].fill(0);
    assert_eq!(read_message(&mut client).unwrap(), (0, addr));
    connect(wanted);
}
