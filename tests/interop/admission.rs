//! The reference's client at our server's door, where a plugin decides.

use super::support::Program::Gost;
use super::support::admission::{guest, put, tunnel_server};
use super::support::auth::{answers, client, user};
use super::support::matrix::Kind;
use super::support::{backend, curl};

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_comes_in_when_a_plugin_allows_it() {
    let web = backend::http("web").await;
    let dir = tempfile::tempdir().unwrap();
    let keys = "auth: { username: ann, password: 'her:own secret' }, plugin: { type: wasm, name: door }";
    let (server, port, visit) = tunnel_server(dir.path(), keys, "");
    put(dir.path(), "door", &guest("admits"));
    server.wait_for(&["plugin in use", "door"]);
    let ann = user("ann", "her:own secret");
    // Denied, told whom it was about, and failing.
    for (name, told) in
        [("d.example:80", "not yours"), ("u.example:80", "plugin \"door\": ann"), ("t.example:80", "trap")]
    {
        let _stranger = Gost.start(&client(Kind::Tunnel, port, name, &ann, web));
        server.wait_for(&["connector refused", told]);
        assert_ne!(curl("known.host", visit, "/", &[]).0, 200, "{name}");
    }
    let known = Gost.start(&client(Kind::Tunnel, port, "x.example:80", &ann, web));
    answers(visit, 200);
    drop(known);
    assert!(!server.log().contains("secret"), "{}", server.log());
}

/// The name that it asks for is not among those that the plugin allows: it gets the one made from its tunnel's ID.
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_gets_no_name_that_the_plugin_does_not_allow() {
    let web = backend::http("web").await;
    let dir = tempfile::tempdir().unwrap();
    let keys = "auth: { username: ann, password: one }, plugin: { type: wasm, name: door }";
    let (server, port, visit) = tunnel_server(dir.path(), keys, ", skipauth: 127.0.0.0/8");
    put(dir.path(), "door", &guest("admits"));
    server.wait_for(&["plugin in use", "door"]);
    // Nor does it need a password here.
    let _client = Gost.start(&client(Kind::Tunnel, port, "n.example:80", "", web));
    server.wait_for(&["not among the hostnames of the tunnel", "n.example"]);
    answers(visit, 200);
}
