//! What a relay asks of whoever wants something of it.

use crate::support::Program::Ours;
use crate::support::matrix::Channel;
use crate::support::relay::{BIND, CONNECT, UDP, loopback, network, request, user};
use crate::support::udp::{self, chain, name_server};
use crate::support::{Proc, backend, curl, eventually, free_port, wait_for_port};

fn relay() -> (Proc, u16) {
    let port = free_port();
    let relay = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: relay, auth: {{ username: ann, password: one }}, metadata: {{ bind: true }} }}
"
    ));
    relay.wait_for(&["listening"]);
    (relay, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_whatever_is_wanted() {
    let (relay, port) = relay();
    let wanted = [
        (CONNECT, backend::http("web").await, false),
        (CONNECT | UDP, name_server(4), true),
        (BIND, 0, false),
        (BIND | UDP, 0, true),
    ];
    for (command, to, udp) in wanted {
        for (shown, expected) in [
            (None, 2),
            (Some(("ann", "two")), 2),
            (Some(("bob", "one")), 2),
            (Some(("ann", "")), 2),
            (Some(("ann", "one")), 0),
        ] {
            let auth = shown.map(|(name, password)| user(name, password));
            let features: Vec<_> = [network(udp), loopback(to)].into_iter().chain(auth).collect();
            assert_eq!(request(port, command, &features).1, expected, "{command:#x} {shown:?}");
        }
    }
    relay.wait_for(&["unauthorized", "no user name and password"]);
    relay.wait_for(&["unauthorized", "wrong user name or password", "bob"]);
    relay.wait_for(&["port opened", "network=\"udp\""]);
    assert_eq!(relay.log().matches("port opened").count(), 2, "{}", relay.log());
}

/// A relay answers a visitor when it likes; what it says of a password is said in the log all the same.
#[tokio::test(flavor = "multi_thread")]
async fn visitors_with_a_wrong_password_are_told_so() {
    let (relay, port) = relay();
    let (web, names, visit) = (backend::http("web").await, name_server(5), free_port());
    let wrong = chain(port, Channel::TCP, "{ type: relay, auth: { username: ann, password: two } }");
    let streams = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{visit}
  handler: {{ type: tcp, chain: chain-0, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{web}' }}] }}
{wrong}"
    ));
    wait_for_port(visit);
    assert_eq!(curl("a.example", visit, "/", &[]).0, 503);
    streams.wait_for(&["cannot connect", "node-0", "wrong user name or password: mend connector.auth"]);

    let (datagrams, visit) = udp::visitor(Ours, &wrong, &format!("127.0.0.1:{names}"));
    eventually("a datagram is asked about", || {
        udp::is_silent(visit);
        datagrams.log().contains("cannot connect").then_some(())
    });
    datagrams.wait_for(&["cannot connect", "node-0", "wrong user name or password: mend connector.auth"]);
    relay.wait_for(&["unauthorized", "wrong user name or password", "ann"]);
}
