//! What `pointsman check` says about files with mistakes that people make, and about unusual ones without.
//!
//! `tests/data/config/bad/NAME.yaml` must end with status 1 and print `NAME.txt`, `good/NAME.yaml` with status 0. After a change
//! of words, `BLESS=1 cargo test --test integration golden` writes the texts anew: read the difference as a user would.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The status and the output of `pointsman check` for these files.
fn check(files: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("check").args(files).output().unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new("tests/data/config").join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    files
}

fn compare(folder: &str, status: i32) -> Vec<(PathBuf, String)> {
    let mut outputs = Vec::new();
    let mut different = Vec::new();
    for path in files(folder) {
        let (code, output) = check(&[path.to_str().unwrap()]);
        assert_eq!(code, status, "{}:\n{output}", path.display());
        let expected = path.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&expected, &output).unwrap();
        } else if std::fs::read_to_string(&expected).ok().as_ref() != Some(&output) {
            different.push(format!("{} is not what is said:\n{output}", expected.display()));
        }
        outputs.push((path, output));
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    outputs
}

#[test]
fn mistakes_are_explained() {
    let outputs = compare("bad", 1);
    assert!(outputs.len() >= 80, "{}", outputs.len());
    for (path, output) in outputs {
        let shown = path.display();
        // Only what is about the file as a whole has no line.
        let places = output.matches("--> ").count();
        let lines = output.matches(&format!("--> {shown}:")).count();
        assert!(places > 0, "{shown}: {output}");
        assert!(lines == places || output.contains("no services"), "{shown}: {output}");
        // Every problem says what to do about it.
        let problems = output.matches("error: ").count();
        assert!(output.matches("\n  = ").count() >= problems, "{shown}: {output}");
    }
}

#[test]
fn what_gost_takes_is_taken() {
    for (path, output) in compare("good", 0) {
        let quiet = output.ends_with(", 0 warnings\n");
        assert_eq!(quiet, !path.ends_with("warnings.yaml"), "{}:\n{output}", path.display());
    }
}

#[test]
fn several_files_are_one_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let server = write(
        "server.yaml",
        "services: [{ name: a, addr: ':8443', handler: { type: tunnel, metadata: { ingress: i } } }]",
    );
    let ingress = write("ingress.yaml", "ingresses: [{ name: i, rules: [] }]");
    let (code, output) = check(&[&server, &ingress]);
    assert_eq!((code, output.as_str()), (0, "ok: 1 service, 0 warnings\n"));
    let (code, output) = check(&[&server]);
    assert!(code == 1 && output.contains("there is no ingress \"i\""), "{output}");
    // Each problem names its own file, and a file that cannot be read keeps no other from being looked at.
    let (code, output) = check(&[&server, &write("bad.yaml", "a: [")]);
    assert!(code == 1 && output.contains("bad.yaml:1:"), "{output}");
    assert!(!output.contains("there is no ingress"), "{output}");
    let (code, output) =
        check(&[&write("a.yaml", "log: { level: x }"), &write("b.yaml", "log: { level: y }")]);
    assert!(code == 1 && output.contains("a.yaml:1:") && output.contains("b.yaml:1:"), "{output}");
}

#[test]
fn what_cannot_be_read_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("latin1.yaml"), b"services:\n- name: caf\xe9\n").unwrap();
    for (file, texts) in [
        (path("none.yaml"), &["cannot read ", "none.yaml", "is the name right"][..]),
        (path(""), &["is a directory", "-C"]),
        ("https://example.com/gost.yaml".to_owned(), &["a URL is not fetched", "curl"]),
        (path("latin1.yaml"), &["line 2 is not UTF-8"]),
        ("/dev/zero".to_owned(), &["more than 33554432 bytes"]),
    ] {
        let (code, output) = check(&[&file]);
        assert_eq!(code, 1, "{output}");
        assert!(texts.iter().all(|text| output.contains(text)), "{file}: {output}");
    }
    let (code, output) = check(&["-", "-"]);
    assert!(code == 1 && output.contains("given twice"), "{output}");
    let (code, output) = check(&[r#"{"services": [{"addr": ":1", "handler": {"type": "whoami"}}]}"#]);
    assert_eq!((code, output.as_str()), (0, "ok: 1 service, 0 warnings\n"));
}

/// What is wrong with the files of lists keeps everything from starting, in the same words.
#[test]
fn files_of_lists_are_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let config = format!(
        "services: [{{ addr: '127.0.0.1:0', admission: n, handler: {{ type: tunnel, auther: a, metadata: {{ ingress: i }} }} }}]
ingresses: [{{ name: i, file: {{ path: '{}' }} }}]
authers: [{{ name: a, file: {{ path: '{}' }} }}]
admissions: [{{ name: n, file: {{ path: '{}' }} }}]
",
        path("rules"),
        path("users"),
        path("addresses")
    );
    std::fs::write(path("f.yaml"), config).unwrap();
    let id = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
    std::fs::write(path("rules"), format!("a.example {id}\nb.example 7\n")).unwrap();
    std::fs::write(path("addresses"), "10.0.0.0/40\n").unwrap();
    let (code, output) = check(&[&path("f.yaml")]);
    assert!(code == 1 && output.ends_with("not ok: 3 errors, 0 warnings\n"), "{output}");
    let ingress = format!("ingress \"i\": {}: line 2, \"b.example\": no tunnel ID", path("rules"));
    let auther = format!("auther \"a\": {}: ", path("users"));
    let admission = format!("admission \"n\": {}: line 1: \"10.0.0.0/40\"", path("addresses"));
    for text in [&ingress, &auther, &admission] {
        assert!(output.contains(&format!("error: {text}")), "{text}: {output}");
    }
    let start = Command::new(env!("CARGO_BIN_EXE_pointsman")).args(["-C", &path("f.yaml")]).output().unwrap();
    let said = String::from_utf8(start.stderr).unwrap();
    assert!(!start.status.success() && said.contains(&format!("pointsman: {ingress}")), "{said}");
    for (name, text) in
        [("rules", format!("a.example {id}\n")), ("users", "u p\n".to_owned()), ("addresses", String::new())]
    {
        std::fs::write(path(name), text).unwrap();
    }
    assert_eq!(check(&[&path("f.yaml")]), (0, "ok: 1 service, 0 warnings\n".to_owned()));
}

/// The names that a certificate is for, and what that means for nodes: certificates are made here, the texts above have none.
#[test]
fn certificates_are_checked_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let make = |name: &str, hosts: &[&str]| {
        let key = rcgen::KeyPair::generate().unwrap();
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a.example");
        let [crt, pem] = ["crt", "key"].map(|end| path(&format!("{name}.{end}")));
        std::fs::write(&crt, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&pem, key.serialize_pem()).unwrap();
        format!("{{ certFile: '{crt}', keyFile: '{pem}' }}")
    };
    let check = |certificates: &[&str], nodes: &str| {
        let text = format!(
            "services: [{{ addr: ':1', handler: {{ type: tcp, metadata: {{ sniffing: true }}, \
             tls: {{ certificates: [{}] }} }}, forwarder: {{ nodes: [{nodes}] }} }}]",
            certificates.join(", ")
        );
        std::fs::write(path("f.yaml"), text).unwrap();
        check(&[&path("f.yaml")])
    };
    let [good, common_name, address] =
        [make("good", &["*.b.example", "a.example"]), make("cn", &[]), make("ip", &["192.0.2.1"])];
    let (code, output) = check(&[&good, &common_name, &address], "{ addr: '127.0.0.1:2' }");
    assert_eq!(code, 1, "{output}");
    for (place, file) in [("certificates[1]", "cn.crt"), ("certificates[2]", "ip.crt")] {
        let wanted =
            format!("services[0].handler.tls.{place}: {}: no host name in its subjectAltName", path(file));
        assert!(output.contains(&wanted), "{output}");
    }
    assert!(!output.contains("certificates[0]"), "{output}");

    let node = |host: &str| format!("{{ addr: '127.0.0.1:2', filter: {{ host: '{host}', protocol: tls }} }}");
    for host in ["x.b.example", "*.b.example", ".b.example", "a.example", "A.Example"] {
        let (code, output) = check(&[&good], &format!("{{ addr: '127.0.0.1:3' }}, {}", node(host)));
        let warned = output.contains("services[0].forwarder.nodes[1]: TLS to ")
            && output.contains("ends at handler.tls");
        assert!(code == 0 && warned && output.ends_with("1 warning\n"), "{host}: {output}");
    }
    for node in [
        node("b.example"),
        node("x.y.b.example"),
        node(".a.example"),
        node("*"),
        "{ addr: '127.0.0.1:2', filter: { host: a.example } }".to_owned(),
        "{ addr: '127.0.0.1:2', host: a.example, protocol: http }".to_owned(),
    ] {
        let (code, output) = check(&[&good], &node);
        assert!(code == 0 && output.ends_with(" 0 warnings\n"), "{node}: {output}");
    }
}
