use super::*;
use proptest::prelude::*;

const SAMPLES: [(&[u8], u32); 2] = [
    (include_bytes!("../../../tests/fuzz/corpus/quic/rfc9001-a2"), VERSION_1),
    (include_bytes!("../../../tests/fuzz/corpus/quic/rfc9369-a2"), VERSION_2),
];

fn read(datagram: &[u8]) -> Option<Result<Option<ClientHello>, Malformed>> {
    Some(InitialReader::begin(datagram)?.read(datagram))
}

/// The packets in the appendices of both RFCs.
#[test]
fn the_samples_of_the_standards_name_their_server() {
    for (sample, version) in SAMPLES {
        let hello = read(sample).unwrap().unwrap().unwrap();
        assert_eq!(hello.server_name.unwrap().as_str(), "example.com", "{version:x}");
        assert_eq!(hello.alpn, ["alpn".into()]);
    }
}

#[test]
fn what_is_no_initial_is_told_apart() {
    for (sample, _) in SAMPLES {
        for at in 0..sample.len() {
            let mut changed = sample.to_vec();
            changed[at] ^= 0x10;
            // Sealed is all that is behind the version and the ID, which the keys come from.
            assert!(InitialReader::begin(&changed).is_none(), "{at}");
        }
        for len in [0, 1, 5, 20, 1199] {
            assert!(InitialReader::begin(&sample[..len]).is_none(), "{len}");
        }
    }
    assert!(InitialReader::begin(&[0x40; 1300]).is_none());
    assert!(InitialReader::begin(&[0xc0; 1300]).is_none());
}

/// An Initial packet with these frames, padded to a whole datagram.
fn seal(version: u32, id: &[u8], number: u8, frames: &[u8]) -> Vec<u8> {
    let quic = if version == VERSION_2 { Version::V2 } else { Version::V1 };
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap().quic_suite().unwrap();
    let keys = suite.keys(id, Side::Client, quic).local;
    let first = if version == VERSION_2 { 0xd0 } else { 0xc0 };
    let mut header = vec![first];
    header.extend(version.to_be_bytes());
    header.push(u8::try_from(id.len()).unwrap());
    header.extend(id);
    header.push(0);
    // A token of three bytes.
    header.extend([3, 1, 2, 3]);
    let mut payload = frames.to_vec();
    payload.resize(frames.len().max(1170), 0);
    header.extend((0x4000 | u16::try_from(payload.len() + 17).unwrap()).to_be_bytes());
    let at = header.len();
    header.push(number);
    let tag = keys.packet.encrypt_in_place(number.into(), &header, &mut payload).unwrap();
    let mut packet = [header, payload, tag.as_ref().to_vec()].concat();
    let sample: [u8; 16] = packet[at + 4..at + 20].try_into().unwrap();
    let (head, tail) = packet.split_at_mut(at);
    keys.header.encrypt_in_place(&sample, &mut head[0], &mut tail[..1]).unwrap();
    packet
}

fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let number = |n: usize| (0x8000_0000 | u32::try_from(n).unwrap()).to_be_bytes();
    [&[6][..], &number(offset), &number(data.len()), data].concat()
}

/// A ClientHello's handshake message for `name`, with `padding` bytes in front of the name.
fn hello(name: &str, padding: usize) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let entry = [&[0][..], &sized(name.as_bytes())].concat();
    let extensions = [&[0, 21][..], &sized(&vec![0; padding]), &[0, 0], &sized(&sized(&entry))].concat();
    let body = [&[3; 34][..], &[0, 0, 2, 0x13, 1, 1, 0], &sized(&extensions)].concat();
    [&[1, 0][..], &sized(&body)].concat()
}

const ID: &[u8] = b"12345678";

/// A hello of more than one datagram: pieces in any order, some of them twice, with frames of other kinds between them.
#[test]
fn a_hello_over_several_datagrams_in_any_order() {
    let message = hello("pq.example", 2500);
    let (mut pieces, size) = (Vec::new(), 400);
    for (i, piece) in message.chunks(size).enumerate() {
        let mut frames = crypto(i * size, piece);
        frames.extend([1, 0, 0, 2, 0, 0, 0, 0]);
        pieces.push(seal(VERSION_1, ID, u8::try_from(i).unwrap(), &frames));
    }
    for turn in 0..pieces.len() {
        pieces.rotate_left(1);
        let mut order: Vec<_> = pieces.iter().rev().collect();
        order.insert(2, &pieces[pieces.len() - 1]);
        let (last, before) = order.split_last().unwrap();
        let mut reader = InitialReader::begin(before[0]).unwrap();
        for datagram in before {
            assert_eq!(reader.read(datagram), Ok(None), "{turn}");
        }
        let found = reader.read(last).unwrap().unwrap();
        assert_eq!(found.server_name.unwrap().as_str(), "pq.example", "{turn}");
    }
}

#[test]
fn several_packets_in_one_datagram() {
    let message = hello("two.example", 1000);
    let (a, b) = message.split_at(500);
    let (one, two) = (seal(VERSION_2, ID, 0, &crypto(500, b)), seal(VERSION_2, ID, 1, &crypto(0, a)));
    let other = seal(VERSION_2, b"strange!", 0, &crypto(0, b"nonsense"));
    let found = read(&[one, other, two, vec![0x40; 30]].concat()).unwrap().unwrap().unwrap();
    assert_eq!(found.server_name.unwrap().as_str(), "two.example");
}

#[test]
fn what_is_wrong_inside_is_told() {
    for frames in [
        crypto(0, b"\x02\0\0\x01x"),
        crypto(20_000, b"x"),
        crypto(0, b"\x01\0\xff\xff"),
        vec![0x08, 0, 1],
        vec![0x1c, 0, 0, 0],
        vec![6, 0, 0x7f],
        vec![2, 0, 0, 0x7f, 0xff],
        (0..70).flat_map(|i| crypto(2 * i + 1, b"x")).collect(),
    ] {
        assert!(read(&seal(VERSION_1, ID, 0, &frames)).unwrap().is_err(), "{frames:02x?}");
    }
    assert_eq!(read(&seal(VERSION_1, ID, 0, &[1])), Some(Ok(None)));
}

proptest! {
    #[test]
    fn any_frames_are_survived(frames in prop::collection::vec(any::<u8>(), 0..1000), version: bool) {
        let version = if version { VERSION_1 } else { VERSION_2 };
        let mut reader = InitialReader::begin(&seal(version, ID, 0, &[1])).unwrap();
        drop(reader.read(&seal(version, ID, 1, &frames)));
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        drop(read(&bytes));
        if let Some(head) = bytes.first_chunk_mut() {
            *head = [0xc0, 0, 0, 0, 1, 8];
        }
        drop(read(&bytes));
    }

    /// However a message is cut, what is known of it from its beginning is right.
    #[test]
    fn pieces_join(cuts in prop::collection::vec((0usize..300, 1usize..60), 1..60)) {
        let message: Vec<u8> = (0..400).map(|i| i as u8).collect();
        let (mut pieces, mut seen) = (Crypto::default(), vec![false; 400]);
        for (at, len) in cuts {
            pieces.add(at as u64, &message[at..at + len]).unwrap();
            seen[at..at + len].fill(true);
            let known = seen.iter().take_while(|seen| **seen).count();
            prop_assert_eq!(pieces.beginning(), &message[..known]);
        }
    }
}
