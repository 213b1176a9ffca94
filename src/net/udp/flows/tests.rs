//! Flows of real ports on loopback.

use super::super::exchange::{End, exchange};
use super::super::port::Port;
use super::super::socket::Connected;
use super::super::{BoxDatagrams, Flow};
use super::*;
use crate::addr::HostPort;
use crate::net::pipe::Which;
use std::future::poll_fn;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn loopback() -> HostPort {
    HostPort::parse("127.0.0.1:0", 0).unwrap()
}

async fn port(settings: Settings) -> Port {
    Port::bind(&loopback(), settings).await.unwrap()
}

async fn peer(port: &Port) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(port.local_addr()).await.unwrap();
    socket
}

async fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut buf = vec![0; 70_000];
    let len = timeout(PATIENCE, socket.recv(&mut buf)).await.unwrap().unwrap();
    buf.truncate(len);
    buf
}

async fn next(flow: &mut Flow) -> Option<Bytes> {
    poll_fn(|cx| flow.datagrams.poll_recv(cx)).await.unwrap()
}

async fn answer(flow: &mut Flow, text: &'static str) {
    poll_fn(|cx| flow.datagrams.poll_send(cx, &Bytes::from_static(text.as_bytes()))).await.unwrap();
}

/// A port whose flows end as soon as they have said what they heard, with the number of datagrams in front.
async fn echo(mut flow: Flow) -> usize {
    let mut count = 0;
    while let Some(datagram) = next(&mut flow).await {
        poll_fn(|cx| flow.datagrams.poll_send(cx, &datagram)).await.unwrap();
        count += 1;
    }
    count
}

#[tokio::test]
async fn each_peer_has_a_flow_of_its_own() {
    let mut port = port(Settings::default()).await;
    let (one, other) = (peer(&port).await, peer(&port).await);
    one.send(b"1").await.unwrap();
    let mut first = port.accept().await;
    assert_eq!(first.client, one.local_addr().unwrap());
    one.send(b"2").await.unwrap();
    other.send(b"3").await.unwrap();
    let mut second = port.accept().await;
    assert_eq!(second.client, other.local_addr().unwrap());
    assert_eq!(next(&mut second).await.unwrap(), "3");
    assert_eq!(next(&mut first).await.unwrap(), "1");
    assert_eq!(next(&mut first).await.unwrap(), "2");
    answer(&mut second, "to the other").await;
    answer(&mut first, "to the one").await;
    assert_eq!(heard(&one).await, b"to the one");
    assert_eq!(heard(&other).await, b"to the other");
}

#[tokio::test]
async fn a_flow_that_was_dropped_begins_anew() {
    let mut port = port(Settings { max_flows: 1, ..Settings::default() }).await;
    let one = peer(&port).await;
    for text in ["1", "2"] {
        one.send(text.as_bytes()).await.unwrap();
        let mut flow = port.accept().await;
        assert_eq!(next(&mut flow).await.unwrap(), text);
    }
}

#[tokio::test]
async fn no_more_flows_than_there_may_be_and_no_more_waits_than_may() {
    let mut flows = Flows::new(Settings { max_flows: 2, queue: 3, ..Settings::default() });
    let (sender, _heard) = mpsc::channel(1);
    let mut from = |peer: u16, text: &'static str, new| {
        let peer = SocketAddr::from(([192, 0, 2, 1], peer));
        flows.deliver(peer, Bytes::from_static(text.as_bytes()), new, || {
            Sink::Queue(PollSender::new(sender.clone()))
        })
    };
    assert!(from(0, "none may begin", false).is_none());
    let mut one = from(1, "a", true).unwrap();
    let two = from(2, "b", true).unwrap();
    assert!(from(3, "no room", true).is_none());
    for text in ["c", "d", "lost"] {
        assert!(from(1, text, true).is_none());
    }
    for text in ["a", "c", "d"] {
        assert_eq!(poll_fn(|cx| one.poll_recv(cx)).await.unwrap().unwrap(), text);
    }
    drop(two);
    assert!(from(3, "room", true).is_some());
    // The largest datagrams fill what all may hold long before the queues are full.
    let mut flows = Flows::new(Settings { queue: 10_000, ..Settings::default() });
    let large = Bytes::from(vec![0; 65_000]);
    let mut one = None;
    for _ in 0..600 {
        let flow = flows.deliver(SocketAddr::from(([192, 0, 2, 1], 1)), large.clone(), true, || {
            Sink::Queue(PollSender::new(sender.clone()))
        });
        one = one.or(flow);
    }
    assert_eq!(one.unwrap().queue.len(), MAX_QUEUED / (65_000 + OVERHEAD));
}

#[tokio::test]
async fn without_keepalive_a_flow_ends_with_its_answer() {
    let mut port = port(Settings { keepalive: false, ..Settings::default() }).await;
    let one = peer(&port).await;
    for _ in 0..2 {
        one.send(b"question").await.unwrap();
        let flow = port.accept().await;
        assert_eq!(timeout(PATIENCE, echo(flow)).await.unwrap(), 1);
        assert_eq!(heard(&one).await, b"question");
    }
}

/// A flow from a port to a socket at `target`, and its end.
async fn forwarded(port: &mut Port, target: SocketAddr) -> JoinHandle<(End, (u64, u64))> {
    let flow = port.accept().await;
    let target: BoxDatagrams = Box::new(Connected::dial(&target.into(), PATIENCE).await.unwrap());
    let ttl = flow.ttl.unwrap();
    tokio::spawn(async move {
        let mut moved = (0, 0);
        let end = exchange(flow.datagrams, target, Vec::new(), ttl, |a, b| moved = (a, b)).await;
        (end, moved)
    })
}

#[tokio::test]
async fn datagrams_of_any_size_pass_whole_and_silence_ends_a_flow() {
    let mut port = port(Settings { ttl: Duration::from_millis(300), ..Settings::default() }).await;
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let one = peer(&port).await;
    let sizes = [0, 1, 1_200, 9_000, 65_507];
    let mut flow = None;
    for size in sizes {
        let datagram: Vec<u8> = (0..size).map(|i| i as u8).collect();
        one.send(&datagram).await.unwrap();
        if flow.is_none() {
            flow = Some(forwarded(&mut port, target.local_addr().unwrap()).await);
        }
        let mut buf = vec![0; 70_000];
        let got = timeout(PATIENCE, async {
            // The port is read by whoever waits for new flows.
            tokio::select! { _ = port.accept() => panic!("a second flow"), got = target.recv_from(&mut buf) => got }
        });
        let (len, from) = got.await.unwrap().unwrap();
        assert_eq!(buf[..len], datagram);
        target.send_to(&datagram, from).await.unwrap();
        assert_eq!(heard(&one).await, datagram);
    }
    let (end, moved) = timeout(PATIENCE, flow.unwrap()).await.unwrap().unwrap();
    let sum = sizes.iter().sum::<usize>() as u64;
    assert_eq!((end, moved), (End::Silent, (sum, sum)));
}

#[tokio::test]
async fn a_target_where_nobody_listens_is_known() {
    let mut port = port(Settings::default()).await;
    let one = peer(&port).await;
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    one.send(b"anybody?").await.unwrap();
    let (end, _) = timeout(PATIENCE, forwarded(&mut port, nobody).await).await.unwrap().unwrap();
    assert_eq!(end, End::Error(Which::B, io::ErrorKind::ConnectionRefused));
}

#[tokio::test]
async fn a_port_that_closes_serves_the_flows_it_has() {
    let mut port = port(Settings::default()).await;
    let (one, other) = (peer(&port).await, peer(&port).await);
    one.send(b"1").await.unwrap();
    let mut flow = port.accept().await;
    assert_eq!(next(&mut flow).await.unwrap(), "1");
    let drain = tokio::spawn(async move { port.drain().await });
    other.send(b"too late").await.unwrap();
    one.send(b"2").await.unwrap();
    assert_eq!(timeout(PATIENCE, next(&mut flow)).await.unwrap().unwrap(), "2");
    assert!(!drain.is_finished());
    drop(flow);
    timeout(PATIENCE, drain).await.unwrap().unwrap();
}
