//! Clients that should not come in, and handshakes that do not come to an end, on every channel: both ends say what is wrong,
//! nothing is left of it, and whoever is in is served meanwhile.

use super::{answers, client, client_as, server, server_for, stranger};
use crate::support::{Proc, eventually, free_port};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::sleep;

/// Both tests for every channel.
macro_rules! channels {
    ($($kind:ident)*) => {
        $(mod $kind {
            #[test]
            fn keeps_out_who_should_not_come_in() {
                super::keeps_out(stringify!($kind));
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn leaves_a_slow_handshake() {
                super::leaves_a_slow_handshake(stringify!($kind)).await;
            }
        })*
    };
}

channels! { tls mtls ws wss mws mwss h2 h2c grpc quic mtcp tcp }

/// What is wrong with a client, and what is said of it.
struct Fault {
    dialer: String,
    auth: &'static str,
    at_client: &'static str,
    at_server: &'static str,
}

const ANN: &str = ", auth: { username: ann, password: one }";

/// The ends of a channel whose server asks for a password, on the path that it has and with a certificate if it can.
struct Ends<'a> {
    kind: &'a str,
    dir: &'a Path,
}

impl Ends<'_> {
    fn has_tls(&self) -> bool {
        matches!(self.kind, "tls" | "mtls" | "wss" | "mwss" | "h2" | "grpc" | "quic")
    }

    /// The client's word for another path, if there are paths.
    fn another_path(&self) -> Option<&'static str> {
        match self.kind {
            "ws" | "wss" | "mws" | "mwss" => Some("is the path the same"),
            "h2" | "h2c" | "grpc" => Some("400"),
            _ => None,
        }
    }

    fn channel(&self, path: &str, tls: &str) -> String {
        let path = self.another_path().map(|_| format!("path: {path}")).unwrap_or_default();
        let tls = if self.has_tls() { format!(", tls: {{ {tls} }}") } else { String::new() };
        format!("{{ type: {}, metadata: {{ {path} }}{tls} }}", self.kind)
    }

    fn file(&self, name: &str) -> String {
        format!("'{}'", self.dir.join(name).display())
    }

    /// The keys of a certificate of its own.
    fn pair(&self, name: &str) -> String {
        format!(
            "certFile: {}, keyFile: {}",
            self.file(&format!("{name}.crt")),
            self.file(&format!("{name}.key"))
        )
    }

    fn listener(&self) -> String {
        self.channel("/svc/way", &format!("{}, caFile: {}", self.pair("server"), self.file("client.crt")))
    }

    /// Keys by which the server is verified.
    fn verified(&self) -> String {
        format!("secure: true, caFile: {}", self.file("server.crt"))
    }

    fn dialer(&self) -> String {
        self.channel("/svc/way", &format!("{}, {}", self.verified(), self.pair("client")))
    }

    fn faults(&self) -> Vec<Fault> {
        let fault = |dialer, at_client, at_server| Fault { dialer, auth: ANN, at_client, at_server };
        let mut faults = vec![Fault {
            dialer: self.dialer(),
            auth: ", auth: { username: ann, password: two }",
            at_client: "wrong user name or password: mend connector.auth",
            at_server: "wrong user name or password, user",
        }];
        if let Some(at_client) = self.another_path() {
            let tls = format!("{}, {}", self.verified(), self.pair("client"));
            faults.push(fault(self.channel("/svc/other", &tls), at_client, "asks for another path"));
        }
        if self.has_tls() {
            let (verified, own) = (self.verified(), self.pair("client"));
            let trusting = |keys: String| self.channel("/svc/way", &format!("{keys}, {own}"));
            let showing = |keys: &str| self.channel("/svc/way", &format!("{verified}{keys}"));
            let distrusted = "the client does not trust this certificate";
            let pinned = format!("fingerprint: '{}'", "0".repeat(64));
            let stranger = format!(", {}", self.pair("stranger"));
            faults.extend([
                fault(
                    trusting(format!("secure: true, caFile: {}", self.file("stranger.crt"))),
                    "give the server's CA as tls.caFile",
                    distrusted,
                ),
                fault(trusting(pinned), "not the one of tls.fingerprint", distrusted),
                fault(
                    trusting(format!("{verified}, serverName: other.example")),
                    "give the name in the certificate as tls.serverName",
                    distrusted,
                ),
                fault(
                    showing(""),
                    "the server wants a certificate: tls.certFile",
                    "the client shows no certificate",
                ),
                fault(
                    showing(&stranger),
                    "the server does not take the certificate",
                    "no CA in tls.caFile has signed",
                ),
            ]);
        }
        faults
    }
}

/// A certificate that only whoever has it can have signed: `NAME.crt` and `NAME.key`.
pub(super) fn certificate(dir: &Path, name: &str, host: &str) {
    let mut params = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    std::fs::write(dir.join(format!("{name}.crt")), cert.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// Everybody has gone: no connection is left, and no task for whose sake the process could not end.
fn ends_with_nothing_left(mut server: Proc) {
    eventually("no connection is left", || (server.connections() == 0).then_some(()));
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    server.wait_for(&["stopped"]);
    assert!(!server.log().contains("are cut"), "{}", server.log());
}

fn keeps_out(kind: &str) {
    let dir = tempfile::tempdir().unwrap();
    for (name, host) in [("server", "localhost"), ("client", "client.example"), ("stranger", "localhost")] {
        certificate(dir.path(), name, host);
    }
    let ends = Ends { kind, dir: dir.path() };
    let (server, port, visit) = server_for(&ends.listener(), ", auth: { username: ann, password: one }", "");
    let good = client_as(ANN, port, &ends.dialer(), free_port(), "");
    server.wait_for(&["connector up"]);
    answers(visit);
    let before = server.connections();
    for Fault { dialer, auth, at_client, at_server } in ends.faults() {
        let said = server.log().len();
        let bad = stranger(auth, port, &dialer, "");
        bad.wait_for(&["cannot connect", at_client]);
        server.wait_for_after(said, &[at_server]);
        answers(visit);
        // Between two of its tries.
        eventually(&format!("{kind}: the client keeps nothing"), || (bad.connections() == 0).then_some(()));
        assert!(!bad.log().contains("connected"), "{dialer}: {}", bad.log());
        drop(bad);
        eventually(&format!("{kind}: the server keeps nothing"), || {
            (server.connections() <= before).then_some(())
        });
    }
    let log = server.log();
    assert_eq!(log.matches("connector up").count(), 1, "{log}");
    assert!(!log.contains("connector down"), "{log}");
    drop(good);
    server.wait_for(&["connector down"]);
    ends_with_nothing_left(server);
}

/// The pause before each byte: the shortest of all handshakes takes longer than it may.
const DRIP: Duration = Duration::from_millis(25);

/// A port whose connections reach the other one a byte at a time. Whoever gives up is not told to the other side.
async fn drip(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut client_read, mut client_write) = stream.into_split();
                let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let (mut server_read, mut server_write) = server.into_split();
                tokio::join!(
                    byte_by_byte(&mut client_read, &mut server_write),
                    byte_by_byte(&mut server_read, &mut client_write)
                );
            });
        }
    });
    port
}

async fn byte_by_byte(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) {
    let mut byte = [0];
    while from.read_exact(&mut byte).await.is_ok() {
        sleep(DRIP).await;
        // The other side may have given up.
        let _ = to.write_all(&byte).await;
    }
}

/// A port whose datagrams reach the other one, and from which none comes back.
async fn one_way(to: u16) -> u16 {
    let (inner, outer) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let port = inner.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut datagram = [0; 2048];
        while let Ok(len) = inner.recv(&mut datagram).await {
            // The server may be gone.
            let _ = outer.send_to(&datagram[..len], ("127.0.0.1", to)).await;
        }
    });
    port
}

async fn leaves_a_slow_handshake(kind: &str) {
    let listener = format!("{{ type: {kind}, metadata: {{ handshakeTimeout: 1s }} }}");
    // The farewell of a client of QUIC comes after the server has given up, and is repeated for a while, beside the next try.
    let (patience, left) = if kind == "quic" { ("2s", 2) } else { ("1s", 0) };
    let dialer = format!("{{ type: {kind}, metadata: {{ handshakeTimeout: {patience} }} }}");
    let (message, channel) = ("no relay message in time", "no handshake of the data channel within");
    let (at_client, at_server) = match kind {
        "tcp" => (message, message),
        // The channel has nothing to agree on before the first message, or leaves it to come with that.
        "mtcp" | "h2c" => (message, ""),
        _ => (channel, channel),
    };
    let (server, port, visit) = server(&listener, ", handshakeTimeout: 1s");
    let good = client(port, &format!("{{ type: {kind} }}"), free_port(), "");
    server.wait_for(&["connector up"]);
    let before = server.connections();
    let slow = if kind == "quic" { one_way(port).await } else { drip(port).await };
    tokio::task::block_in_place(|| {
        let late = stranger("", slow, &dialer, ", metadata: { handshakeTimeout: 1s }");
        server.wait_for(&[at_server, "(handshakeTimeout)"]);
        late.wait_for(&["cannot connect", at_client, "(handshakeTimeout)"]);
        answers(visit);
        eventually("it has tried again", || (late.log().matches("cannot connect").count() > 2).then_some(()));
        eventually("the client keeps nothing", || (late.connections() <= left).then_some(()));
        drop(late);
        eventually("the server keeps nothing", || (server.connections() <= before).then_some(()));
        assert!(!server.log().contains("connector down"), "{}", server.log());
        drop(good);
        server.wait_for(&["connector down"]);
        ends_with_nothing_left(server);
    });
}

/// What is said at the client, and at the server.
#[test]
fn ends_that_do_not_go_together_say_why() {
    let wrong = "0".repeat(64);
    let pinned = format!("{{ type: tls, tls: {{ fingerprint: '{wrong}' }} }}");
    let pinned_quic = pinned.replace("type: tls", "type: quic");
    let other_alpn = "{ type: quic, tls: { options: { alpn: [other] } } }";
    let distrusted = "does not trust";
    let the_same = "the same type at both ends?";
    let insecure = "{ type: grpc, metadata: { grpc.insecure: true } }";
    for (listener, dialer, at_client, at_server) in [
        ("{ type: quic }", "{ type: quic, tls: { secure: true } }", "tls.caFile", distrusted),
        ("{ type: quic }", &pinned_quic, "tls.fingerprint", distrusted),
        (other_alpn, "{ type: quic }", "tls.options.alpn", "tls.options.alpn"),
        // Nothing of these reaches the server: all that can be seen there is what it speaks.
        ("{ type: tcp }", "{ type: quic }", "refused", "channel=\"tcp\""),
        ("{ type: quic }", "{ type: tls }", "refused", "channel=\"quic\""),
        ("{ type: tls }", "{ type: tls, tls: { secure: true } }", "tls.caFile", distrusted),
        ("{ type: tls }", &pinned, "tls.fingerprint", distrusted),
        (
            "{ type: tls, tls: { options: { alpn: [one] } } }",
            "{ type: tls, tls: { options: { alpn: [two] } } }",
            "tls.options.alpn",
            "tls.options.alpn",
        ),
        (
            "{ type: tls, tls: { options: { minVersion: VersionTLS13 } } }",
            "{ type: tls, tls: { options: { maxVersion: VersionTLS12 } } }",
            "minVersion",
            "minVersion",
        ),
        ("{ type: tls }", "{ type: tcp }", the_same, "speaks no TLS"),
        ("{ type: tcp }", "{ type: tls }", the_same, the_same),
        ("{ type: mtls }", "{ type: mtcp }", the_same, the_same),
        ("{ type: mtcp }", "{ type: mtls }", the_same, the_same),
        ("{ type: wss }", "{ type: ws }", the_same, the_same),
        ("{ type: ws }", "{ type: wss }", the_same, the_same),
        ("{ type: mwss }", "{ type: mws }", the_same, the_same),
        ("{ type: mws }", "{ type: mwss }", the_same, the_same),
        ("{ type: h2 }", "{ type: h2c }", the_same, the_same),
        ("{ type: h2c }", "{ type: h2 }", the_same, the_same),
        ("{ type: grpc }", insecure, the_same, the_same),
        (insecure, "{ type: grpc }", the_same, the_same),
        (
            "{ type: ws }",
            "{ type: ws, metadata: { path: /other } }",
            "is the path the same",
            "asks for another path",
        ),
        ("{ type: ws }", "{ type: tcp }", "cannot connect", the_same),
        ("{ type: h2c }", "{ type: tcp }", "cannot connect", the_same),
        ("{ type: tcp }", "{ type: ws }", "cannot connect", "bad_handshake"),
        ("{ type: h2c }", "{ type: h2c, metadata: { path: /other } }", "405", "asks for another path"),
        ("{ type: grpc }", "{ type: grpc, metadata: { grpc.path: /a/b } }", "400", "asks for another path"),
        ("{ type: mtcp }", "{ type: tcp }", "cannot connect", "broke the protocol"),
    ] {
        let (server, port, _) = server(listener, "");
        let client = client(port, dialer, free_port(), "");
        client.wait_for(&["cannot connect", at_client]);
        server.wait_for(&[at_server]);
        assert!(!server.log().contains("connector up"), "{listener} {dialer}: {}", server.log());
    }
}
