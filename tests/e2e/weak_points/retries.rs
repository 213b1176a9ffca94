//! Weak points 16 and 18: how our client comes back, and what it asks a relay server for.

use super::{client_yaml, to};
use crate::support::{Program::Ours, connect, free_port, now, relay, wait_for_port};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Weak point 16: the waits grow, differ from client to client, and the log says why there is no session.
#[test]
fn refused_clients_come_back_ever_later_and_not_in_step() {
    const CLIENTS: usize = 4;
    const TRIES: usize = 9;
    let arrivals: Vec<(crate::support::Proc, Vec<Instant>)> = std::thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|_| scope.spawn(refuse_a_client::<TRIES>)).collect::<Vec<_>>();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let mut last_waits = Vec::new();
    for (client, times) in &arrivals {
        let waits: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // From 100 ms, each 1.15 times the one before, and between half of that and the whole.
        assert!(waits[TRIES - 2] > waits[0], "{waits:?}");
        assert!(waits[TRIES - 2] >= Duration::from_millis(133), "{waits:?}");
        last_waits.push(waits[TRIES - 2]);
        client.wait_for(&["cannot connect", "ServiceUnavailable", "in use at the server"]);
    }
    let (least, most) = (last_waits.iter().min().unwrap(), last_waits.iter().max().unwrap());
    assert!(*most - *least > Duration::from_millis(5), "{last_waits:?}");
}

/// A server that answers every BIND with "service unavailable"; when each try came.
fn refuse_a_client<const TRIES: usize>() -> (crate::support::Proc, Vec<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let yaml = client_yaml(listener.local_addr().unwrap().port(), &to(1));
    let yaml = yaml.replace("type: tunnel,", "type: tunnel, auth: { username: u, password: s3cret },");
    let client = Ours.start(&yaml);
    let mut times = Vec::new();
    while times.len() < TRIES {
        let (mut stream, _) = listener.accept().unwrap();
        times.push(now());
        relay::read_message(&mut stream).unwrap();
        stream.write_all(&relay::message(5, &[])).unwrap();
        drop(stream.read(&mut [0]));
    }
    assert!(!client.log().contains("s3cret"));
    (client, times)
}

/// Weak point 18: `addr: :PORT` is asked for as the IPv4 address that it means.
#[test]
fn a_port_alone_is_asked_for_as_an_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let server = listener.local_addr().unwrap().port();
    let _client = Ours.start(&format!(
        "services:
- addr: :{port}
  handler: {{ type: rtcp }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ addr: '127.0.0.1:1' }}] }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{server}', connector: {{ type: relay }} }}] }}]
"
    ));
    let (mut stream, _) = listener.accept().unwrap();
    let (command, features) = relay::read_message(&mut stream).unwrap();
    let [high, low] = port.to_be_bytes();
    assert_eq!(command, relay::BIND);
    assert_eq!(features, [&relay::network(false)[..], &[2, 0, 7, 1, 0, 0, 0, 0, high, low]].concat());
}

/// Weak point 18: the form in which the reference asks for `:PORT` opens that port.
#[test]
fn the_defective_form_opens_the_port() {
    let (port, wanted) = (free_port(), free_port());
    let _server = Ours.start(&format!(
        "services: [{{ addr: '127.0.0.1:{port}', handler: {{ type: relay, metadata: {{ bind: true }} }} }}]"
    ));
    wait_for_port(port);
    let mut client = connect(port);
    let name = relay::name(&format!("0.0.0.0::{wanted}"), 0);
    client.write_all(&relay::message(relay::BIND, &[relay::network(false), name])).unwrap();
    let (status, features) = relay::read_message(&mut client).unwrap();
    let [high, low] = wanted.to_be_bytes();
    assert_eq!((status, &features[..]), (0, &[2, 0, 7, 1, 0, 0, 0, 0, high, low][..]));
    wait_for_port(wanted);
}
