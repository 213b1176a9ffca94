mod access;
mod mistakes;

use super::super::{Format, Printed, Problems, Shorthand, Source, load_all, print};

const ID: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const OTHER: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";

/// Arguments as one types them, without the quotes of a shell.
fn shorthand(line: &str) -> Shorthand {
    let mut shorthand = Shorthand::default();
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    while let (Some(flag), Some(word)) = (words.next(), words.next()) {
        let list = if flag == "-L" { &mut shorthand.services } else { &mut shorthand.nodes };
        list.push(word.replace("<id>", ID).replace("<other>", OTHER));
    }
    shorthand
}

fn file(text: &str) -> Source {
    Source { name: "f.yaml".to_owned(), text: text.replace("<id>", ID).replace("<other>", OTHER) }
}

fn printed(files: &[Source], line: &str) -> Result<Printed, String> {
    let shown = |problems: Problems| problems.0.iter().map(ToString::to_string).collect();
    print(files, &shorthand(line), Format::Yaml).map_err(shown)
}

/// What is said about arguments that cannot be run.
fn refused(line: &str) -> String {
    printed(&[], line).expect_err(line)
}

/// The arguments say what the file says, with the same warnings.
fn same(line: &str, yaml: &str) {
    let arguments = printed(&[], line).unwrap_or_else(|problems| panic!("{line}\n{problems}"));
    let written = printed(&[file(yaml)], "").unwrap_or_else(|problems| panic!("{yaml}\n{problems}"));
    assert_eq!(arguments.text, written.text, "{line}");
    let messages = |printed: &Printed| -> Vec<_> {
        printed.warnings.iter().map(|warning| (warning.path.clone(), warning.message.clone())).collect()
    };
    let sorted = |printed| {
        let mut messages = messages(printed);
        messages.sort();
        messages
    };
    assert_eq!(sorted(&arguments), sorted(&written), "{line}");
}

/// The lines of the specification that are supported.
#[test]
fn typical() {
    same(
        "-L tunnel://:8443?entrypoint=:80&tunnel=.example.com:<id>,example.org:<other>",
        "services:
- name: service-0
  addr: :8443
  handler: { type: tunnel, metadata: { entrypoint: ':80', tunnel: '.example.com:<id>,example.org:<other>' } }
  listener: { type: tcp }
",
    );
    same(
        "-L rtcp://:0/192.168.1.1:80 -F tunnel://server:8443?tunnel.id=<id>&tunnel.weight=2",
        "services:
- name: service-0
  addr: :0
  handler: { type: rtcp }
  listener: { type: rtcp, chain: chain-0 }
  forwarder: { nodes: [{ name: target-0, addr: '192.168.1.1:80' }] }
chains:
- name: chain-0
  hops:
  - name: hop-0
    nodes:
    - name: node-0
      addr: server:8443
      connector: { type: tunnel, metadata: { tunnel.id: <id>, tunnel.weight: 2 } }
      dialer: { type: tcp }
",
    );
    same(
        "-L tcp://:8000/srv-2.local -F tunnel+wss://server:8443?tunnel.id=<id>",
        "services:
- name: service-0
  addr: :8000
  handler: { type: tcp, chain: chain-0 }
  listener: { type: tcp }
  forwarder: { nodes: [{ name: target-0, addr: srv-2.local }] }
chains:
- name: chain-0
  hops:
  - name: hop-0
    nodes:
    - name: node-0
      addr: server:8443
      connector: { type: tunnel, metadata: { tunnel.id: <id> } }
      dialer: { type: wss }
",
    );
    same(
        "-L relay+wss://user:pass@:8443?bind=true",
        "services:
- name: service-0
  addr: :8443
  handler: { type: relay, auth: { username: user, password: pass }, metadata: { bind: true } }
  listener: { type: wss }
",
    );
    same(
        "-L rtcp://0.0.0.0:443/192.168.1.1:443 -F relay+wss://user:pass@server:8443",
        "services:
- name: service-0
  addr: 0.0.0.0:443
  handler: { type: rtcp }
  listener: { type: rtcp, chain: chain-0 }
  forwarder: { nodes: [{ name: target-0, addr: '192.168.1.1:443' }] }
chains:
- name: chain-0
  hops:
  - name: hop-0
    nodes:
    - name: node-0
      addr: server:8443
      connector: { type: relay, auth: { username: user, password: pass } }
      dialer: { type: wss }
",
    );
}

/// Each key stands in the metadata that knows it, or in that of the object in front of it.
#[test]
fn keys_find_their_place() {
    same(
        "-L tcp+ws://:80/a:1?sniffing=true&path=/p&maxConnections=7&handler.connectTimeout=2s&SNIFFING.Timeout=1s&listener.backlog=5",
        "services:
- name: service-0
  addr: :80
  handler: { type: tcp, metadata: { connectTimeout: 2s, sniffing: true, SNIFFING.Timeout: 1s } }
  listener: { type: ws, metadata: { backlog: 5, path: /p } }
  forwarder: { nodes: [{ name: target-0, addr: 'a:1' }] }
  metadata: { maxConnections: 7 }
",
    );
    same(
        "-L tcp://:80/a:1?proxyProtocol=1&handler.proxyProtocol=2&retries=3",
        "services:
- name: service-0
  addr: :80
  handler: { type: tcp, retries: 3, metadata: { proxyProtocol: 2 } }
  listener: { type: tcp }
  forwarder: { nodes: [{ name: target-0, addr: 'a:1' }] }
  metadata: { proxyProtocol: 1 }
",
    );
    // What two of them know both get, unless one has its own.
    same(
        "-L relay+mtls://u:p@:80?mux.version=2&handshakeTimeout=3s&handler.mux.version=1",
        "services:
- name: service-0
  addr: :80
  handler: { type: relay, auth: { username: u, password: p }, metadata: { mux.version: 1, handshakeTimeout: 3s } }
  listener: { type: mtls, metadata: { mux.version: 2, handshakeTimeout: 3s } }
",
    );
    same(
        "-L tcp://:80/a:1 -F relay+wss://h:1?path=/p&weight=2&connector.nodelay=true&hop.x=1&backup=true&dialer.handshakeTimeout=1s",
        "services:
- name: service-0
  addr: :80
  handler: { type: tcp, chain: chain-0 }
  listener: { type: tcp }
  forwarder: { nodes: [{ name: target-0, addr: 'a:1' }] }
chains:
- name: chain-0
  hops:
  - name: hop-0
    nodes:
    - name: node-0
      addr: h:1
      connector: { type: relay, metadata: { nodelay: true } }
      dialer: { type: wss, metadata: { handshakeTimeout: 1s, path: /p } }
      metadata: { weight: 2, backup: true }
    metadata: { x: 1 }
",
    );
}

#[test]
fn ports_and_targets_are_ranges() {
    let service = |n: usize, port: u16, nodes: &str| {
        format!(
            "- name: service-{n}\n  addr: '[::1]:{port}'\n  handler: {{ type: tcp }}\n  listener: {{ type: tcp }}\n  \
             forwarder: {{ nodes: [{nodes}] }}\n"
        )
    };
    let target = |n: usize, addr: &str| format!("{{ name: target-{n}, addr: '{addr}' }}");
    let both = [target(0, "[fe80::1]:80"), target(1, "b:81")];
    same(
        "-L tcp://[::1]:8000/[fe80::1]:80,b:81",
        &format!("services:\n{}", service(0, 8000, &both.join(", "))),
    );
    let ranges = format!("services:\n{}{}", service(0, 8000, &both[0]), service(1, 8001, &both[1]));
    same("-L tcp://[::1]:8000-8001/[fe80::1]:80,b:81", &ranges);
    let one = format!("services:\n{}{}", service(0, 8000, &both[0]), service(1, 8001, &both[0]));
    same("-L tcp://[::1]:8000-8001/[fe80::1]:80", &one);
    let three = [target(0, "a:1"), target(1, "a:2"), target(2, "b:3")].join(", ");
    same("-L tcp://[::1]:8000/a:1-2,b:3", &format!("services:\n{}", service(0, 8000, &three)));
    let surplus = printed(&[], "-L tcp://:8000-8001/a:1-3").unwrap();
    assert_eq!(surplus.warnings[0].message, "2 ports and 3 targets");
    assert!(refused("-L tcp://:8000-8002/a:1-2").contains("3 ports and 2 targets"));
    assert!(refused("-L tcp://:1-65535/a:1").contains("too many ports"));
    assert!(refused("-L tcp://:1/a:1-9000,b:1-9000").contains("too many ports"));
    assert!(refused("-L tcp://:9-8/a:1").contains("is no address"));
}

#[test]
fn a_path_makes_a_forwarding_handler() {
    for (scheme, handler, listener) in [
        ("tcp", "tcp", "tcp"),
        ("tls", "tcp", "tls"),
        ("forward+tls", "tcp", "tls"),
        ("relay+tls", "relay", "tls"),
        ("tunnel", "tcp", "tcp"),
    ] {
        same(
            &format!("-L {scheme}://:80/a:1"),
            &format!(
                "services:\n- name: service-0\n  addr: :80\n  handler: {{ type: {handler} }}\n  listener: {{ type: {listener} }}\n  \
                 forwarder: {{ nodes: [{{ name: target-0, addr: 'a:1' }}] }}"
            ),
        );
    }
    same(
        "-L :80/a:1/?strategy=fifo&max_fails=2",
        "services:
- name: service-0
  addr: :80
  handler: { type: tcp }
  listener: { type: tcp }
  forwarder:
    nodes: [{ name: target-0, addr: 'a:1' }]
    selector: { strategy: fifo, maxFails: 2, failTimeout: 30s }
",
    );
    assert!(refused("-L whoami://:80/a:1").contains("handler whoami takes no forwarder"));
}

#[test]
fn several_hops_of_several_nodes() {
    same(
        "-L whoami+rtcp://:0 -F socks5://me:p%40ss%3A@[::1]:1080 -F direct:// -F https://h:1 -F relay+tls://a:1,b:2?strategy=hash&failTimeout=5",
        "services:
- name: service-0
  addr: :0
  handler: { type: whoami }
  listener: { type: rtcp, chain: chain-0 }
chains:
- name: chain-0
  hops:
  - name: hop-0
    nodes:
    - name: node-0
      addr: '[::1]:1080'
      connector: { type: socks5, auth: { username: me, password: 'p@ss:' } }
      dialer: { type: tcp }
  - name: hop-1
    nodes:
    - name: node-0
      connector: { type: direct }
      dialer: { type: direct }
  - name: hop-2
    nodes:
    - name: node-0
      addr: h:1
      connector: { type: http }
      dialer: { type: tls }
  - name: hop-3
    selector: { strategy: hash, maxFails: 1, failTimeout: 5s }
    nodes:
    - name: node-0
      addr: a:1
      connector: { type: relay }
      dialer: { type: tls }
    - name: node-1
      addr: b:2
      connector: { type: relay }
      dialer: { type: tls }
",
    );
}

/// What YAML has objects with names for.
#[test]
fn named_objects() {
    same(
        "-L whoami://:80?admission=~10.0.0.0/8,::1 -L whoami://:81?admission=192.0.2.1",
        "services:
- name: service-0
  addr: :80
  admission: admission-0
  handler: { type: whoami }
  listener: { type: tcp }
- name: service-1
  addr: :81
  admission: admission-1
  handler: { type: whoami }
  listener: { type: tcp }
admissions:
- { name: admission-0, whitelist: true, matchers: [10.0.0.0/8, '::1'] }
- { name: admission-1, matchers: [192.0.2.1] }
",
    );
    let text = refused(
        "-L whoami://:80?bypass=a&resolver=b,c&prefer=ipv4&hosts=d:e&limiter.in=1MB&climiter=5&rlimiter=2",
    );
    for key in ["bypass", "resolver", "hosts", "limiter", "climiter", "rlimiter"] {
        let error = format!("error: services[0].{key}: not supported yet, and it would be unsafe");
        assert!(text.contains(&error), "{key}: {text}");
    }
    assert!(!text.contains("unknown") && !text.contains("warning: "), "{text}");
    let text = refused("-L whoami://:80?limiter.in=1MB");
    assert_eq!((text.matches("error: ").count(), text.matches("warning: ").count()), (1, 0), "{text}");
    let text =
        refused("-L whoami+rtcp://:0 -F relay://h:1?bypass=a&resolver=b&hosts=c:d&interface=eth0&so_mark=1");
    for key in ["bypass", "resolver", "hosts", "interface", "sockopts"] {
        let error = format!("error: chains[0].hops[0].{key}: not supported yet, and it would be unsafe");
        assert!(text.contains(&error), "{key}: {text}");
    }
    let text = refused("-L tcp://:80/a:1?interface=eth0&netns=x&so_mark=2");
    assert_eq!(text.matches("error: services[0].metadata.").count(), 3, "{text}");
}

/// Files come first; names are the next that are free, and files and arguments may name each other's objects.
#[test]
fn files_and_arguments_are_one_configuration() {
    let text = "services: [{ name: service-1, addr: ':1', handler: { type: tcp, chain: chain-1 }, forwarder: { nodes: [{ addr: 'a:1' }] } }]
chains: [{ name: chain-0, hops: [{ nodes: [{ connector: { type: direct } }] }] }]
ingresses: [{ name: i, rules: [{ hostname: h, endpoint: <id> }] }]
";
    let line = "-L tunnel://:80?ingress=i -L rtcp://:0/a:1 -F tunnel://h:1?tunnel.id=<id>";
    let printed = printed(&[file(text)], line).unwrap();
    let names: Vec<_> = printed.text.lines().filter(|line| line.starts_with("- name: ")).collect();
    assert_eq!(
        names,
        [
            "- name: service-1",
            "- name: service-2",
            "- name: service-3",
            "- name: chain-0",
            "- name: chain-1",
            "- name: i"
        ]
    );
    assert!(printed.text.contains("\n  listener:\n    type: rtcp\n    chain: chain-1\n"), "{}", printed.text);
    let problems = load_all(&[file("a: [")], &shorthand("-L whoami://:80?x")).unwrap_err().0;
    assert_eq!(problems.len(), 2, "{problems:?}");
}
