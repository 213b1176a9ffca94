//! Certificates and passwords in arguments.

use super::{printed, refused, same};

#[test]
fn certificates_are_lifted_out() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name).display().to_string());
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let fingerprint = "ab".repeat(32);
    let yaml = format!(
        "services:
- name: service-0
  addr: :8443
  handler: {{ type: whoami }}
  listener: {{ type: tls, tls: {{ certFile: {cert}, keyFile: {key} }} }}
- name: service-1
  addr: :0
  handler: {{ type: whoami }}
  listener: {{ type: rtcp, chain: chain-0 }}
chains:
- name: chain-0
  hops:
  - name: hop-0
    nodes:
    - name: node-0
      addr: h:1
      connector: {{ type: relay }}
      dialer:
        type: tls
        tls: {{ certFile: {cert}, keyFile: {key}, caFile: {cert}, secure: true, serverName: x, fingerprint: {fingerprint} }}
"
    );
    let tls = format!(
        "tls.certFile={cert}&keyFile={key}&ca={cert}&secure=true&tls.servername=x&fingerprint={fingerprint}"
    );
    let services = format!("-L whoami+tls://:8443?cert={cert}&KEY={key} -L whoami+rtcp://:0");
    let chainless = yaml.replace(", chain: chain-0", "").replace("type: rtcp", "type: tcp");
    let chainless = chainless.split("chains:").next().unwrap().replace("addr: :0", "addr: :81");
    same(&services.replace("rtcp://:0", "tcp://:81"), &chainless);
    let only = yaml.replacen("- name: service-0\n", "", 1);
    let reverse = only.split_once("- name: service-1").unwrap().1.replace("service-1", "service-0");
    same(
        &format!("-L whoami+rtcp://:0 -F relay+tls://h:1?{tls}"),
        &format!("services:\n- name: service-0{reverse}"),
    );
    let both = printed(&[], &format!("{services} -F relay+tls://h:1?{tls}")).unwrap();
    assert!(both.text.contains("fingerprint: abab"), "{}", both.text);
}

/// User and password, from both places and with all the ways to write them.
#[test]
fn credentials() {
    for (user, query, expected) in [
        ("u:p@", "", "username: u, password: p"),
        ("a%3Ab:c%40d%25%2F@", "", "username: 'a:b', password: 'c@d%/'"),
        ("u:p@q:r@", "", "username: u, password: 'p@q:r'"),
        ("u:a+b@", "", "username: u, password: a+b"),
        ("", "&auth=dTpwOnE", "username: u, password: 'p:q'"),
        ("", "&auth=dTpwOnE%3D", "username: u, password: 'p:q'"),
        ("u:p@", "&auth=eDp5", "username: u, password: p"),
    ] {
        same(
            &format!("-L relay://{user}:80?bind=true{query}"),
            &format!(
                "services: [{{ name: service-0, addr: ':80', handler: {{ type: relay, auth: {{ {expected} }}, metadata: {{ bind: true }} }}, listener: {{ type: tcp }} }}]"
            ),
        );
    }
    assert!(refused("-L relay://:80?auth=%21").contains("no base64 of a text"));
    assert!(refused("-L relay://u@:80").contains("user without a password"));
}
