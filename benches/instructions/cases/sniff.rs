//! The first bytes of a connection, from when they are there to read.

use super::runtime;
use bytes::Bytes;
use pointsman::net::{Conn, memory};
use pointsman::sniff::{Settings, Sniffed, look};
use rustls::pki_types::ServerName;
use std::hint::black_box;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

pub(super) fn http() -> Box<dyn FnMut()> {
    let head = b"GET /index.html HTTP/1.1\r\nHost: www.example.com\r\nAccept: */*\r\n\r\n";
    sniffing(head.to_vec(), |sniffed| assert_eq!(*sniffed, Sniffed::Http1))
}

pub(super) fn tls() -> Box<dyn FnMut()> {
    sniffing(client_hello(), |sniffed| {
        let Sniffed::Tls(hello) = sniffed else { panic!("{sniffed:?}") };
        assert_eq!(hello.server_name.as_ref().unwrap().as_str(), "www.example.com");
    })
}

/// The same connection over and over: it is as if nothing had been read of it.
fn sniffing(first: Vec<u8>, check: fn(&Sniffed)) -> Box<dyn FnMut()> {
    let runtime = runtime();
    let settings = Settings::default();
    let (stream, mut visitor) = memory::pair(1 << 16);
    let mut conn = Conn {
        stream: Box::new(stream),
        prefix: Bytes::new(),
        client: ([192, 0, 2, 1], 4000).into(),
        local: ([192, 0, 2, 2], 443).into(),
        secure: false,
        via: None,
    };
    Box::new(move || {
        conn.prefix = Bytes::new();
        runtime.block_on(async {
            visitor.write_all(&first).await.unwrap();
            check(&black_box(look(&mut conn, &settings).await.unwrap()));
        });
    })
}

/// What rustls sends first, with the key share of a post-quantum group.
fn client_hello() -> Vec<u8> {
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("www.example.com").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
