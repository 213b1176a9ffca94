//! What passes through `net::copy` at both ends: there no byte is copied that need not be.

use super::*;
use crate::net::copy::{Copy, Finished};

const SIZE: usize = 8 << 20;
/// Where the second copy begins, in the middle of a piece.
const LIMIT: usize = 3_000_001;

/// From a socket through a stream to a socket, in pieces of all sizes.
async fn pass(kind: Kind) {
    let (opener, _acceptor, mut incoming) = pair(&settings(kind)).await;
    let (mut source, mut from) = tcp().await;
    let (mut to, mut sink) = tcp().await;
    let data = noise(kind as u64, SIZE);
    let send = async {
        let (mut rest, mut rng) = (&data[..], fastrand::Rng::with_seed(5));
        while !rest.is_empty() {
            let most = if rng.bool() { 100 } else { 200_000 };
            let (piece, others) = rest.split_at(rng.usize(1..most).min(rest.len()));
            source.write_all(piece).await.unwrap();
            rest = others;
        }
        source.shutdown().await.unwrap();
    };
    let enter = async {
        let mut stream = opener.open(Bytes::from_static(b"header")).unwrap();
        let mut copy = Copy::new();
        assert_eq!(poll_fn(|cx| copy.poll(cx, &mut from, &mut stream)).await.unwrap(), Finished::Eof);
        stream.shutdown().await.unwrap();
        assert_eq!(copy.moved(), SIZE as u64);
        stream
    };
    let leave = async {
        let mut stream = incoming.accept().await.unwrap();
        stream.read_exact(&mut [0; 6]).await.unwrap();
        for (mut copy, end) in [(Copy::limited(LIMIT as u64), Finished::Limit), (Copy::new(), Finished::Eof)]
        {
            assert_eq!(poll_fn(|cx| copy.poll(cx, &mut stream, &mut to)).await.unwrap(), end);
            let moved = if end == Finished::Limit { LIMIT } else { SIZE - LIMIT };
            assert_eq!(copy.moved(), moved as u64);
        }
        to.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, _stream, _, read) = tokio::join!(send, enter, leave, sink.read_to_end(&mut got));
    read.unwrap();
    assert!(got == data, "{kind:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_copied_in_and_out_arrives_whole() {
    for kind in [Kind::SmuxV1, Kind::SmuxV2, Kind::Yamux] {
        pass(kind).await;
    }
}

/// Pieces are given out as they lie in memory, no more of them than is wanted, and not where there is too little.
#[tokio::test]
async fn received_bytes_are_given_out_within_bounds() {
    let (session, _incoming, mut peer) = half(Role::Client, &settings(Kind::SmuxV2));
    let mut stream = session.open(Bytes::new()).unwrap();
    expect(&mut peer, &v2(Command::Syn, 3, &[])).await;
    let data = noise(1, 1000);
    peer.write_all(&v2(Command::Psh, 3, &data)).await.unwrap();
    assert!(stream.take_chunk(1, 1000).is_none());
    poll_fn(|cx| stream.poll_readable(cx)).await.unwrap();
    assert!(stream.take_chunk(1001, 2000).is_none());
    assert_eq!(stream.take_chunk(1, 600).unwrap(), data[..600]);
    assert!(stream.take_chunk(401, 600).is_none());
    assert_eq!(stream.take_chunk(400, 600).unwrap(), data[600..]);
    assert!(stream.take_chunk(0, 600).is_none());
}
