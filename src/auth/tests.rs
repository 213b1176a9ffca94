use super::*;
use std::fs;
use std::time::Duration;
use tokio::time::timeout;

/// Of "correct horse", with few rounds.
const ARGON2: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$";

fn credentials(text: &[(&str, &str)]) -> Vec<Credential> {
    let one = |(user, secret): &(&str, &str)| Credential {
        username: (*user).to_owned(),
        secret: Secret::parse(secret).unwrap(),
    };
    text.iter().map(one).collect()
}

fn auther(users: &[(&str, &str)], file: Option<lines::Settings>) -> Auther {
    Auther::new(&Settings { name: "a".to_owned(), users: credentials(users), file }).unwrap()
}

async fn comes_in(auther: &Auther, user: &str, password: &str) -> bool {
    auther.check(user.as_bytes(), password.as_bytes()).await.is_some_and(|login| &*login.user == user)
}

fn bcrypt_of(password: &str) -> String {
    bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().to_string()
}

fn argon2_of(password: &str) -> String {
    use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
    argon2.hash_password_with_salt(password.as_bytes(), b"some salt of it").unwrap().to_string()
}

#[tokio::test]
async fn the_right_password_lets_in_however_it_is_kept() {
    let (argon2, bcrypt) = (argon2_of("correct horse"), bcrypt_of("battery"));
    assert!(argon2.starts_with(&ARGON2[..20]), "{argon2}");
    let auther = auther(&[("ann", "plain"), ("bob", &argon2), ("cid", &bcrypt)], None);
    // The second time the hash is not computed.
    for _ in 0..2 {
        for (user, password) in [("ann", "plain"), ("bob", "correct horse"), ("cid", "battery")] {
            assert!(comes_in(&auther, user, password).await, "{user}");
            for wrong in ["", "plai", "plain ", "correct horsf", "batterY", &argon2, &bcrypt] {
                assert!(wrong == password || !comes_in(&auther, user, wrong).await, "{user} {wrong}");
            }
        }
    }
    for nobody in ["", "dan", "ANN", "ann "] {
        for password in ["plain", "correct horse", "battery", ""] {
            assert!(!comes_in(&auther, nobody, password).await, "{nobody} {password}");
        }
    }
}

#[test]
fn what_is_no_secret() {
    for (text, reason) in [
        ("", "empty password"),
        ("$argon2id$", "no argon2 hash"),
        ("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ", "missing"),
        ("$argon2id$v=19$m=9999999,t=1,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "at most"),
        ("$2b$10$short", "no bcrypt hash"),
        (&bcrypt_of("x").replace("$04$", "$31$"), "at most"),
    ] {
        let error = Secret::parse(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    assert_eq!(format!("{:?}", Secret::parse("shown?").unwrap()), "Secret(***)");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_revokes_whom_it_no_longer_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    // A new file for each change: two within the grain of the file system's clock would look the same.
    let write = |text: &str| {
        let new = dir.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
    };
    write("# who\nann  one two\nbob b#b # comment\ninline other\n\n");
    let file = lines::Settings { path: path.clone(), every: Duration::from_secs(1) };
    let auther = Arc::new(auther(&[("inline", "i"), ("only", "o")], Some(file)));
    for (user, password, expected) in [
        ("ann", "one two", true),
        ("bob", "b#b", true),
        ("inline", "other", true),
        ("inline", "i", false),
        ("only", "o", true),
    ] {
        assert_eq!(comes_in(&auther, user, password).await, expected, "{user}");
    }
    let login =
        async |user: &str, password: &str| auther.check(user.as_bytes(), password.as_bytes()).await.unwrap();
    let (ann, bob, only) =
        (login("ann", "one two").await, login("bob", "b#b").await, login("only", "o").await);
    let stop = CancellationToken::new();
    let following = tokio::spawn(Arc::clone(&auther).follow(stop.clone()));

    write("ann one two\n");
    timeout(Duration::from_secs(60), bob.revoked.cancelled()).await.unwrap();
    assert!(!comes_in(&auther, "bob", "b#b").await);
    assert!(!ann.revoked.is_cancelled() && !only.revoked.is_cancelled());

    // A line that is wrong, and a file that is gone, change nothing.
    write("ann\n");
    tokio::time::sleep(Duration::from_secs(5)).await;
    fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(comes_in(&auther, "ann", "one two").await && !ann.revoked.is_cancelled());

    write("ann another\n");
    timeout(Duration::from_secs(60), ann.revoked.cancelled()).await.unwrap();
    assert!(!comes_in(&auther, "ann", "one two").await && comes_in(&auther, "ann", "another").await);
    stop.cancel();
    following.await.unwrap();
}

#[test]
fn a_file_that_is_wrong_at_the_start_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    let error = |text: Option<&str>| {
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let file = lines::Settings { path: path.clone(), every: Duration::from_secs(1) };
        Auther::new(&Settings { name: "a".to_owned(), users: Vec::new(), file: Some(file) })
            .unwrap_err()
            .to_string()
    };
    assert!(error(None).contains("users"));
    assert!(error(Some("\nann\n")).ends_with("line 2: expected USER PASSWORD"));
    assert!(error(Some("ann $2b$10$x")).contains("line 1: no bcrypt hash"));
    assert!(error(Some(&format!("{} x", "u".repeat(256)))).contains("255"));
}
