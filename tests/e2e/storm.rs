//! Thousands of connections that end in odd ways leave nothing behind.

use crate::support::matrix::TUNNEL;
use crate::support::{
    Proc, Program::Ours, backend, connect, eventually, exchange, free_port, read_all, relay, wait_for_port,
};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// In each round.
const CONNECTIONS: usize = 700;
const THREADS: usize = 4;
const ROUNDS: usize = 3;
/// What allocator and thread stacks may add from round to round, which is far less than so many connections would hold.
const SLACK: usize = 6 << 20;

/// Pipes for splicing that each worker thread keeps for the next connection.
const KEPT_PIPES: usize = 4;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

fn start(target: u16) -> (Proc, [u16; 3]) {
    let (port, visit, proxy, raw) = (free_port(), free_port(), free_port(), free_port());
    let node = format!("[{{ name: n, addr: '127.0.0.1:{target}' }}]");
    let process = Ours.start(&format!(
        "log: {{ level: debug }}
services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', tunnel: 'h:{TUNNEL}' }} }}
- addr: 127.0.0.1:{proxy}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: {node} }}
- addr: 127.0.0.1:{raw}
  handler: {{ type: tcp }}
  forwarder: {{ nodes: {node} }}
- addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: {node} }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}] }}]
"
    ));
    let ports = [visit, proxy, raw];
    ports.iter().for_each(|port| wait_for_port(*port));
    eventually("the tunnel works", || {
        exchange(visit, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            .0
            .contains("200 OK")
            .then_some(())
    });
    (process, ports)
}

/// One visitor; what it does depends on its number.
fn visit(port: u16, number: usize, hello: &[u8]) {
    let mut stream = connect(port);
    let reset = |stream: &TcpStream| SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    match number % 8 {
        // Says nothing.
        0 => {}
        1 => {
            stream.write_all(GET).unwrap();
            stream.read_exact(&mut [0; 15]).unwrap();
        }
        // In the middle of a head, of a hello, of a body.
        2 => stream.write_all(&GET[..20]).unwrap(),
        3 => stream.write_all(&hello[..hello.len() / 2]).unwrap(),
        4 => stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf").unwrap(),
        5 => {
            stream.write_all(hello).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(&mut stream);
        }
        6 => {
            stream.write_all(GET).unwrap();
            reset(&stream);
        }
        // In the middle of a large answer.
        _ => {
            stream.write_all(b"GET /bytes/1000000 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 1000]).unwrap();
            reset(&stream);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_odd_connections_leave_nothing_behind() {
    let (process, ports) = start(backend::http("web").await);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let before = process.descriptors() + threads * KEPT_PIPES * 2;
    let hello = relay::client_hello(b"h");
    let mut resident = Vec::new();
    for _ in 0..ROUNDS {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let hello = &hello;
                scope.spawn(move || {
                    let numbers = (0..CONNECTIONS).filter(|number| number % THREADS == thread);
                    // Divided by 8 first, so that every port sees every behaviour.
                    numbers.for_each(|number| visit(ports[number / 8 % ports.len()], number, hello));
                });
            }
        });
        eventually("all descriptors are given back", || (process.descriptors() <= before).then_some(()));
        resident.push(process.resident());
    }
    assert!(resident[ROUNDS - 1] < resident[0] + SLACK, "{resident:?}");
    // No stream hangs in the tunnel: the process has nothing to wait for when it stops.
    let mut process = process;
    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
}
