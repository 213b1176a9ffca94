//! Who may open which tunnel, from lines `USER: TUNNEL-ID HOSTNAME ...`.

use std::cell::RefCell;
use std::collections::HashMap;

wit_bindgen::generate!({ path: "wit", world: "admission-plugin" });

use admission::{Answer, Opening, Verdict};
use exports::pointsman::routing::{admission, lifecycle};
use pointsman::routing::types::{Dependency, Reuse};

struct Plugin;

export!(Plugin);

/// Of each user the tunnel, and the names that it may ask for.
type Users = HashMap<String, (String, Vec<String>)>;

thread_local!(static USERS: RefCell<Users> = RefCell::default());

impl lifecycle::Guest for Plugin {
    fn configure(config: String) -> Result<(), String> {
        let lines = (1..).zip(config.lines()).filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'));
        let users = lines.map(|(number, line)| {
            let expected = || format!("line {number}: expected USER: TUNNEL-ID HOSTNAME ...");
            let (user, rest) = line.split_once(':').ok_or_else(expected)?;
            let mut words = rest.split_whitespace().map(str::to_owned);
            // The proxy writes IDs in lower case.
            let tunnel = words.next().ok_or_else(expected)?.to_lowercase();
            Ok((user.trim().to_owned(), (tunnel, words.collect())))
        });
        USERS.set(users.collect::<Result<_, String>>()?);
        Ok(())
    }
}

impl admission::Guest for Plugin {
    fn admit(asked: Opening) -> Result<Answer, String> {
        let verdict = USERS.with_borrow(|users| match users.get(&asked.user) {
            Some((tunnel, hostnames)) if *tunnel == asked.tunnel => Verdict::Allow(hostnames.clone()),
            Some(_) => Verdict::Deny("not this user's tunnel".into()),
            None => Verdict::Deny("no such user".into()),
        });
        // Nothing but the question counted: the proxy need not ask again for a minute.
        Ok(Answer { verdict, reuse: Some(Reuse { ttl_ms: 60_000, depends_on: Dependency::empty() }) })
    }
}
