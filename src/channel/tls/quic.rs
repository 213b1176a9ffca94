//! TLS inside QUIC, by the same settings and files as on a byte stream.

use super::{Acceptor, Connector, alpn_of};
use crate::addr::Host;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::Suite;
use std::io;
use std::sync::Arc;

/// What protects first packets, whatever suites the settings allow for the rest (RFC 9001, section 5.2).
fn initial() -> Suite {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite());
    suite.expect("the suite that QUIC begins with is one of TLS 1.3 and QUIC")
}

const IS_INITIAL: &str = "QUIC begins with this suite";

impl Connector {
    /// For a new connection to that host, with the name to ask for.
    pub(in crate::channel) fn quic(
        &self,
        host: &Host,
        alpn: &[&str],
    ) -> io::Result<(QuicClientConfig, String)> {
        let (name, mut config) = (self.name(host)?.to_str().into_owned(), self.config.current());
        if !self.fixed_alpn {
            Arc::make_mut(&mut config).alpn_protocols = alpn_of(alpn);
        }
        Ok((QuicClientConfig::with_initial(config, initial()).expect(IS_INITIAL), name))
    }
}

impl Acceptor {
    /// For connections that come in from now on.
    pub(in crate::channel) fn quic(&self) -> QuicServerConfig {
        QuicServerConfig::with_initial(self.config.current(), initial()).expect(IS_INITIAL)
    }
}
