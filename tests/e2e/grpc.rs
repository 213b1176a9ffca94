//! HTTP/2 with prior knowledge: gRPC-shaped calls with trailers, routed by `:authority`, through proxy and tunnel.

use crate::support::Program::Ours;
use crate::support::matrix::TUNNEL;
use crate::support::{free_port, wait_for_port};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};

/// Sends each message back, then trailers that name the server; its port.
async fn grpc_server(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let response =
                            Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                        let mut out = respond.send_response(response, false).unwrap();
                        while let Some(data) = body.data().await {
                            let data = data.unwrap();
                            body.flow_control().release_capacity(data.len()).unwrap();
                            out.send_data(data, false).unwrap();
                        }
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        trailers.insert("server", name.parse().unwrap());
                        out.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    port
}

/// Calls on one connection, each to its own authority; returns status, the messages sent back, and the trailers' server.
async fn call(port: u16, authorities: &[&str]) -> Vec<(u16, usize, String)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut results = Vec::new();
    for authority in authorities {
        sender = sender.ready().await.unwrap();
        let request = Request::post(format!("http://{authority}/echo.Echo/Stream"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut out) = sender.send_request(request, false).unwrap();
        for _ in 0..50 {
            out.send_data(Bytes::from(vec![7; 10_000]), false).unwrap();
        }
        out.send_data(Bytes::new(), true).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        let mut len = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            len += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        let trailers = body.trailers().await.unwrap().unwrap_or_default();
        let server = trailers.get("server").map(|s| s.to_str().unwrap().to_owned()).unwrap_or_default();
        results.push((head.status.as_u16(), len, server));
    }
    results
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_proxy_and_tunnel_with_its_trailers() {
    let (a, b) = (grpc_server("a").await, grpc_server("b").await);
    let (proxy, tunnel, visit) = (free_port(), free_port(), free_port());
    let nodes = format!(
        "[{{ addr: '127.0.0.1:{a}', host: a.example }}, {{ addr: '127.0.0.1:{b}', host: b.example }}]"
    );
    let process = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{proxy}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: {nodes} }}
- addr: 127.0.0.1:{tunnel}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', tunnel: 'a.example:{TUNNEL},b.example:{TUNNEL}' }} }}
- addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: {nodes} }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{tunnel}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}] }}]
"
    ));
    process.wait_for(&["connected"]);
    wait_for_port(proxy);
    for port in [proxy, visit] {
        let results = call(port, &["a.example", "b.example", "A.example:80", "none.example"]).await;
        let ok = |server: &str| (200, 500_000, server.to_owned());
        assert_eq!(results[..3], [ok("a"), ok("b"), ok("a")]);
        assert_eq!((results[3].0, results[3].2.as_str()), (502, ""));
    }
}
