use super::*;
use proptest::prelude::*;

fn feature() -> impl Strategy<Value = Feature> {
    let text = || prop::collection::vec(any::<u8>(), 0..255);
    let addr = prop_oneof![
        any::<Ipv4Addr>().prop_map(|ip| AddrHost::Ip(ip.into())),
        any::<Ipv6Addr>().prop_map(|ip| AddrHost::Ip(ip.into())),
        text().prop_map(AddrHost::Name),
    ];
    prop_oneof![
        (text(), text()).prop_map(|(username, password)| Feature::Auth { username, password }),
        (addr, any::<u16>()).prop_map(|(host, port)| Feature::Addr(RelayAddr { host, port })),
        (any::<[u8; 16]>(), any::<u8>(), any::<u8>()).prop_map(|(id, flags, weight)| Feature::Tunnel(
            TunnelFeature { id: Uuid::from_bytes(id), flags, weight }
        )),
        any::<u16>().prop_map(Feature::Network),
        prop::collection::vec((text(), text()), 0..MAX_PAIRS).prop_map(Feature::Metadata),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(command in 0u8..16, udp: bool, features in prop::collection::vec(feature(), 0..6), tail: Vec<u8>) {
        let command = match command { 1 => Command::Connect, 2 => Command::Bind, other => Command::Other(other) };
        let request = Request { command, udp, features };
        let mut buf = BytesMut::new();
        request.encode(&mut buf).unwrap();
        let len = buf.len();
        for cut in 0..len {
            prop_assert_eq!(Request::decode(&buf[..cut]), Ok(None));
        }
        buf.extend_from_slice(&tail);
        prop_assert_eq!(Request::decode(&buf), Ok(Some((request, len))));
    }

    #[test]
    fn any_bytes_are_survived(mut bytes: Vec<u8>, force: bool) {
        if force && !bytes.is_empty() {
            bytes[0] = VERSION;
        }
        let request = Request::decode(&bytes);
        let response = Response::decode(&bytes);
        prop_assert_eq!(request.is_err(), response.is_err());
        if let Ok(Some((response, len))) = response {
            prop_assert!(len <= bytes.len());
            prop_assert!(response.encode(&mut BytesMut::new()).is_ok());
        }
    }
}

#[test]
fn a_message_that_does_not_fit_leaves_nothing_behind() {
    let mut buf = BytesMut::from(&b"before"[..]);
    let long = Feature::Auth { username: vec![0; 256], password: Vec::new() };
    let huge = Feature::Metadata(vec![(vec![0; 40_000], vec![0; 40_000])]);
    for feature in [long, huge] {
        let response = Response { status: Status::Ok, features: vec![Feature::Network(0), feature] };
        assert!(response.encode(&mut buf).is_err());
        assert_eq!(&buf[..], b"before");
    }
}

#[test]
fn endpoint_name_is_half_the_md5_of_the_text() {
    let id = Uuid::parse_str("4D21094E-b74c-4916-86c1-d9fa36ea677b").unwrap();
    assert_eq!(endpoint_name(&id), "a6265c6d9847a4be");
}

#[test]
fn which_address_is_which() {
    let addr = |text: &str| Feature::addr(&HostPort::parse(text, 0).unwrap());
    let features = vec![addr("1.2.3.4:1"), addr("b:2"), addr("c:3")];
    let request = Request { command: Command::Connect, udp: false, features };
    assert_eq!(request.source().unwrap().port(), 1);
    assert_eq!(request.destination().unwrap().port(), 3);
    assert_eq!(request.address().unwrap().port(), 3);
    let one = Request { features: vec![addr("a:1")], ..request };
    assert!(one.destination().is_none());
}

#[test]
fn the_reference_clients_colon_port_is_understood() {
    let name = |text: &str| RelayAddr { host: AddrHost::Name(text.into()), port: 0 };
    assert_eq!(name("0.0.0.0::8081").to_bind().unwrap().to_string(), "0.0.0.0:8081");
    assert_eq!(name("0.0.0.0::8081").to_host_port(), None);
    assert_eq!(name("known.host:abc").to_bind(), None);
}

#[test]
fn passwords_are_not_shown() {
    let auth = Feature::Auth { username: b"user".to_vec(), password: b"secret".to_vec() };
    assert!(!format!("{auth:?}").contains("secret"));
}
