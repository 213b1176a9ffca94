//! Real QUIC: a server that echoes streams, and clients that shake hands with it.

use crate::support::PATIENCE;
use crate::support::backend::{pattern, pattern_sum};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Each stream carries so much in both directions.
const BULK: usize = 1 << 20;

/// A server for some names.
pub(crate) struct Server {
    pub(crate) port: u16,
    name: &'static str,
    roots: Arc<RootCertStore>,
}

impl Server {
    /// It tells its name at the end of each stream.
    pub(crate) fn new(name: &'static str, hosts: &[&str]) -> Self {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let certified = rcgen::generate_simple_self_signed(hosts).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone()).unwrap();
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(serve(incoming, name));
            }
        });
        Self { port, name, roots: Arc::new(roots) }
    }

    /// A client at a local port gets its bytes back from this server.
    pub(crate) async fn echoes(&self, port: u16, host: &str) -> Result<(), String> {
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let connection = endpoint.connect_with(config, to, host).unwrap().await.map_err(|e| e.to_string())?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
        let sending = tokio::spawn(async move {
            send.write_all(&pattern(0, BULK)).await.map_err(|e| e.to_string())?;
            send.finish().map_err(|e| e.to_string())
        });
        let got = receive.read_to_end(BULK + 100).await.map_err(|e| e.to_string())?;
        sending.await.unwrap()?;
        let (echo, name) = got.split_at(BULK);
        assert_eq!((crc32fast::hash(echo), name), (pattern_sum(BULK), self.name.as_bytes()));
        connection.close(0_u8.into(), b"");
        endpoint.wait_idle().await;
        Ok(())
    }

    /// A client of that name gets no answer that it would have to understand.
    pub(crate) async fn is_not_reached(&self, port: u16, host: &str) {
        let tried = timeout(Duration::from_millis(500), self.echoes(port, host)).await;
        assert!(!matches!(tried, Ok(Ok(()))), "{host}");
    }

    /// Clients of that name reach this server at a local port, sooner or later.
    pub(crate) async fn is_reached(&self, port: u16, host: &str) {
        let tries = async {
            while let Err(error) = self.echoes(port, host).await {
                eprintln!("{host} at {port}: {error}");
            }
        };
        timeout(PATIENCE, tries)
            .await
            .unwrap_or_else(|_| panic!("{host} at {port} does not reach {}", self.name));
    }
}

async fn serve(incoming: quinn::Incoming, name: &str) {
    let Ok(connection) = incoming.await else { return };
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let mut buf = vec![0; 1 << 16];
        while let Ok(Some(n)) = receive.read(&mut buf).await {
            if send.write_all(&buf[..n]).await.is_err() {
                return;
            }
        }
        let _ = send.write_all(name.as_bytes()).await;
        let _ = send.finish();
    }
}
