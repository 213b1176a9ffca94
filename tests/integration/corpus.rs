//! The fuzz corpora go through their targets in every run.

#[allow(unreachable_pub, reason = "public in the fuzz package, which it belongs to")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use pointsman::wire::tls::ClientHelloReader;

#[test]
fn corpora_pass() {
    for (name, _) in targets::TARGETS {
        let mut count = 0;
        for entry in std::fs::read_dir(format!("tests/fuzz/corpus/{name}")).unwrap() {
            let data = std::fs::read(entry.unwrap().path()).unwrap();
            for cut in (0..data.len()).step_by(data.len() / 64 + 1) {
                targets::run(name, &data[..cut]);
            }
            targets::run(name, &data);
            count += 1;
        }
        assert!(count >= 3, "{name}: {count}");
    }
}

/// Real ClientHellos, with and without post-quantum key shares, are understood whole.
#[test]
fn recorded_client_hellos_are_understood() {
    for entry in std::fs::read_dir("tests/fuzz/corpus/client_hello").unwrap() {
        let path = entry.unwrap().path();
        let hello = ClientHelloReader::default().read(&std::fs::read(&path).unwrap());
        assert!(matches!(hello, Ok(Some(_))), "{}: {hello:?}", path.display());
    }
}
