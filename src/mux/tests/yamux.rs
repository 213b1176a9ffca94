//! What is particular to yamux. The peer is scripted frame by frame: VERSION, TYPE, FLAGS(2), STREAM(4), LENGTH(4).

use super::*;
use tokio::time::{sleep, timeout};

const DATA: u8 = 0;
const WINDOW: u8 = 1;
const PING: u8 = 2;
const SYN: u16 = 1;
const ACK: u16 = 2;
const CREDIT: u32 = 256 * 1024;

fn head(kind: u8, flags: u16, id: u32, length: u32) -> Vec<u8> {
    [&[0, kind][..], &flags.to_be_bytes(), &id.to_be_bytes(), &length.to_be_bytes()].concat()
}

/// The next frame's type, flags and LENGTH; the payload of data is thrown away.
async fn next(io: &mut MemoryStream) -> (u8, u16, u32) {
    let mut got = [0; 12];
    io.read_exact(&mut got).await.unwrap();
    let length = u32::from_be_bytes([got[8], got[9], got[10], got[11]]);
    if got[1] == DATA {
        io.read_exact(&mut vec![0; length as usize]).await.unwrap();
    }
    (got[1], u16::from_be_bytes([got[2], got[3]]), length)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_nothing_is_given_up_on_time() {
    for (asked, counts) in [(30, 30), (3, 15)] {
        let settings = Settings { keepalive_timeout: Duration::from_secs(asked), ..settings(Kind::Yamux) };
        let (session, _incoming, _peer) = half(Role::Client, &settings);
        let mut stream = session.open(Bytes::from_static(b"header")).unwrap();
        let began = Instant::now();
        let limit = Duration::from_secs(counts);
        assert_eq!(session.closed().await, CloseReason::Silent(limit));
        assert!(began.elapsed() < limit + Duration::from_millis(50), "{:?}", began.elapsed());
        assert!(stream.read(&mut [0; 1]).await.is_err(), "not taken for the end of the data");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_given_up_on_time() {
    let (ours, _theirs) = memory::pair(16);
    let (session, _incoming, driver) =
        start(Box::new(ours), Bytes::new(), Role::Server, &settings(Kind::Yamux));
    tokio::spawn(driver);
    let mut stream = session.open(Bytes::from(vec![0; 1000])).unwrap();
    assert_eq!(session.closed().await, CloseReason::Silent(Duration::from_secs(30)));
    assert!(stream.write(&[0; 1]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn any_sign_of_life_will_do_and_without_keepalive_none_is_asked_for() {
    let (session, _incoming, mut peer) = half(Role::Client, &settings(Kind::Yamux));
    for _ in 0..10 {
        sleep(Duration::from_secs(29)).await;
        peer.write_all(&head(PING, SYN, 0, 7)).await.unwrap();
    }
    assert!(!session.is_closed());
    let silent = Settings { keepalive_interval: None, ..settings(Kind::Yamux) };
    let (session, _incoming, _peer) = half(Role::Client, &silent);
    assert!(timeout(Duration::from_secs(3600), session.closed()).await.is_err());
}

/// In real time, for the crate's pings follow the system's clock.
#[tokio::test]
async fn a_quiet_connection_is_pinged() {
    let (session, _incoming, mut peer) = half(Role::Client, &settings(Kind::Yamux));
    for id in 0..2 {
        let ping =
            timeout(Duration::from_secs(14), next(&mut peer)).await.expect("a ping before the time is up");
        assert_eq!(ping, (PING, SYN, id));
        peer.write_all(&head(PING, ACK, 0, id)).await.unwrap();
    }
    assert!(!session.is_closed());
}

#[tokio::test]
async fn a_window_grows_to_the_setting_and_no_further() {
    let max = 4 * CREDIT;
    let settings = Settings { max_stream_window: max as usize, ..settings(Kind::Yamux) };
    let (_session, mut incoming, mut peer) = half(Role::Server, &settings);
    // The round-trip time that the crate measures: windows grow while they are used up in less than two of it.
    let (_, _, id) = next(&mut peer).await;
    sleep(Duration::from_secs(1)).await;
    peer.write_all(&head(PING, ACK, 0, id)).await.unwrap();
    peer.write_all(&head(WINDOW, SYN, 1, 0)).await.unwrap();
    let mut stream = incoming.accept().await.unwrap();
    tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
    let (mut left, mut widest) = (CREDIT, CREDIT);
    for _ in 0..12 {
        while left > 0 {
            let n = left.min(64 * 1024);
            peer.write_all(&head(DATA, 0, 1, n)).await.unwrap();
            peer.write_all(&vec![0; n as usize]).await.unwrap();
            left -= n;
        }
        while left < CREDIT {
            if let (WINDOW, _, credit) = next(&mut peer).await {
                left += credit;
            }
        }
        widest = widest.max(left);
    }
    assert!(widest > CREDIT && widest <= max, "{widest}");
}

#[tokio::test]
async fn streams_opened_and_dropped_at_the_bound_do_not_end_the_session() {
    let few = Settings { max_streams: 2, ..settings(Kind::Yamux) };
    let (opener, acceptor, mut incoming) = pair(&few).await;
    for _ in 0..20 {
        let streams =
            [opener.open(Bytes::from_static(b"x")).unwrap(), opener.open(Bytes::from_static(b"x")).unwrap()];
        assert_eq!(opener.open(Bytes::new()).unwrap_err(), OpenError::TooMany(2));
        for _ in 0..2 {
            expect_read(&mut incoming.accept().await.unwrap(), b"x").await;
        }
        drop(streams);
    }
    assert!(!opener.is_closed() && !acceptor.is_closed());
}

#[tokio::test]
async fn a_connection_that_breaks_is_not_the_end_of_a_stream() {
    let (_session, mut incoming, mut peer) = half(Role::Server, &settings(Kind::Yamux));
    peer.write_all(&[head(DATA, SYN, 1, 5), b"begun".to_vec()].concat()).await.unwrap();
    let mut stream = incoming.accept().await.unwrap();
    expect_read(&mut stream, b"begun").await;
    drop(peer);
    let end = stream.read(&mut [0; 1]).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

/// An accepted stream is acknowledged when it is first read, not only when there is something to say; a peer that refuses is not
/// taken for one that reads.
#[tokio::test]
async fn reading_is_told_by_the_acknowledgement() {
    let (opener, _acceptor, mut incoming) = pair(&settings(Kind::Yamux)).await;
    let mut near = opener.open(Bytes::from_static(b"header")).unwrap();
    let mut far = incoming.accept().await.unwrap();
    // Something said before anything was read would acknowledge as well.
    near.write_all(b"more").await.unwrap();
    assert_eq!(near.far_end_has_read(), Some(false));
    expect_read(&mut far, b"header").await;
    let acknowledged = async {
        while near.far_end_has_read() != Some(true) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), acknowledged).await.unwrap();
    let mut refused = opener.open(Bytes::from_static(b"header")).unwrap();
    drop(incoming.accept().await.unwrap());
    assert_eq!(refused.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(refused.far_end_has_read(), None);
}
