//! Hostname to tunnel, from lines `HOSTNAME: TUNNEL-ID`.

use std::cell::RefCell;
use std::collections::HashMap;

wit_bindgen::generate!({ path: "wit", world: "ingress-plugin" });

use exports::pointsman::routing::{ingress, lifecycle};
use ingress::{Answer, Verdict};
use pointsman::routing::types::{Dependency, Request, Reuse};

struct Plugin;

export!(Plugin);

thread_local!(static TUNNELS: RefCell<HashMap<String, String>> = RefCell::default());

impl lifecycle::Guest for Plugin {
    fn configure(config: String) -> Result<(), String> {
        let lines = (1..).zip(config.lines()).filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'));
        let pairs = lines.map(|(number, line)| {
            let (host, tunnel) =
                line.split_once(':').ok_or(format!("line {number}: expected HOSTNAME: TUNNEL-ID"))?;
            Ok((host.trim().to_owned(), tunnel.trim().to_owned()))
        });
        TUNNELS.set(pairs.collect::<Result<_, String>>()?);
        Ok(())
    }
}

impl ingress::Guest for Plugin {
    fn resolve(req: Request) -> Result<Answer, String> {
        let tunnel = TUNNELS.with_borrow(|tunnels| tunnels.get(&req.hostname).cloned());
        Ok(Answer {
            verdict: tunnel.map_or(Verdict::Pass, Verdict::Tunnel),
            // Nothing but the hostname counted: the proxy need not ask again for a minute.
            reuse: Some(Reuse { ttl_ms: 60_000, depends_on: Dependency::empty() }),
        })
    }
}
