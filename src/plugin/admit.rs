//! Asks whether a client may open a tunnel; the answer is checked here, and kept for as long as its plugin allows.

use super::ask::{Answered, Called, Generation, MAX_REASON, Returned, Store, Tried};
use super::bind::types::{Dependency, Reuse};
use super::bind::{Asked, admission, one_line};
use super::cache::Kept;
use super::pool::{CallError, Exports};
use crate::addr::{self, Host};
use crate::route::hosts::HostPattern;
use crate::route::{Hostnames, Opening, Refusal, Verdict};
use quick_cache::sync::Cache;
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;

/// Names that one answer may allow: as many answers are kept as decisions, and each keeps its names.
const MAX_HOSTNAMES: usize = 64;

/// The status that stands for all denials in the words of `route`; a client is told by the relay protocol's own.
const FORBIDDEN: u16 = 403;

/// The answers of one version that may be given again.
#[derive(Debug)]
pub(super) struct Openings(Cache<Key, Kept<Verdict<Hostnames>>>);

/// What an answer depended on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    service: Arc<str>,
    tunnel: Uuid,
    user: Arc<str>,
    hostname: Host,
    udp: bool,
    client: Option<IpAddr>,
}

impl Key {
    fn new(opening: &Opening, by_client: bool) -> Self {
        Self {
            service: Arc::clone(&opening.service),
            tunnel: opening.tunnel,
            user: Arc::clone(&opening.user),
            hostname: opening.hostname.clone(),
            udp: opening.udp,
            client: by_client.then(|| opening.client.ip().to_canonical()),
        }
    }
}

impl Openings {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity))
    }

    /// The answer kept for this client.
    fn get(&self, opening: &Opening) -> Option<Verdict<Hostnames>> {
        // Clients come seldom beside requests: both are looked for.
        [false, true].into_iter().find_map(|by_client| self.0.get(&Key::new(opening, by_client))?.fresh())
    }

    fn put(&self, opening: &Opening, reuse: &Reuse, verdict: &Verdict<Hostnames>) {
        let by_client = reuse.depends_on.contains(Dependency::CLIENT);
        if reuse.ttl_ms > 0 {
            self.0.insert(Key::new(opening, by_client), Kept::new(verdict.clone(), reuse.ttl_ms));
        }
    }
}

impl Generation {
    /// Asks whether a client may open a tunnel.
    pub(super) fn admit(self: &Arc<Self>, opening: &Arc<Opening>) -> Called<Verdict<Hostnames>> {
        if let Some(kept) = self.openings.get(opening) {
            self.pool.stats.hit();
            return Called::Now(Ok(kept));
        }
        let (asked, about) = (self.opening_asked(opening), opening.tunnel.to_string());
        let aside = match self.pool.ready(&about) {
            Ok(instance) => {
                let call = |exports: &Exports, store: &mut _| admit(exports, store, opening);
                let answer = self.pool.call(instance, &about, asked, call);
                return Called::Now(answer.and_then(|answer| self.admitted(opening, answer)));
            }
            Err(aside) => aside,
        };
        let place = self.pool.place(&about);
        let (generation, opening) = (Arc::clone(self), Arc::clone(opening));
        Called::Later(Box::pin(async move {
            let question = Arc::clone(&opening);
            let call = move |exports: &Exports, store: &mut _| admit(exports, store, &question);
            let answer = Arc::clone(&generation.pool).call_aside(aside, place, asked, call).await?;
            generation.admitted(&opening, answer)
        }))
    }

    fn admitted(
        &self,
        opening: &Opening,
        answer: admission::Answer,
    ) -> Result<Verdict<Hostnames>, CallError> {
        let verdict = match answer.verdict {
            admission::Verdict::Pass => Verdict::Pass,
            admission::Verdict::Allow(names) => Verdict::Use(hostnames(&names)?),
            admission::Verdict::Deny(reason) => {
                Verdict::Refuse(Refusal { status: FORBIDDEN, reason: one_line(&reason, MAX_REASON) })
            }
        };
        if let Some(reuse) = answer.reuse {
            self.openings.put(opening, &reuse, &verdict);
        }
        Ok(verdict)
    }

    /// Asks apart from traffic, at the time `now`; the cache is left out of it.
    pub(super) fn try_opening(&self, opening: &Opening, now: Option<u64>) -> Tried {
        let asked = Asked { now, ..self.opening_asked(opening) };
        let (answer, trial) =
            self.pool.try_out(asked, |exports: &Exports, store: &mut Store| admit(exports, store, opening));
        let reuse = answer.as_ref().ok().and_then(|answer| answer.reuse);
        let answer = answer.and_then(|answer| self.admitted(opening, answer));
        Tried { answer: answer.map(Answered::Admission), reuse, trial }
    }

    /// What the guest may ask for, if it imports the functions for that.
    fn opening_asked(&self, opening: &Opening) -> Asked {
        if !self.pool.compiled.roles.request_info {
            return Asked::default();
        }
        Asked { extra: opening.extra.clone(), ..Asked::default() }
    }
}

fn hostnames(names: &[String]) -> Result<Hostnames, CallError> {
    if names.len() > MAX_HOSTNAMES {
        return Err(CallError::BadAnswer(format!("{} names; at most {MAX_HOSTNAMES}", names.len())));
    }
    let pattern = |name: &String| {
        let bad = || {
            let shown = one_line(name, 64);
            CallError::BadAnswer(format!("{shown:?} is no host such as a.example or *.a.example"))
        };
        HostPattern::from_filter(name).ok().flatten().ok_or_else(bad)
    };
    names.iter().map(pattern).collect()
}

fn admit(exports: &Exports, store: &mut Store, opening: &Opening) -> Returned<admission::Answer> {
    let Some(guest) = &exports.admission else { return Ok(Err("it decides no admission".to_owned())) };
    let (tunnel, client) = (opening.tunnel.to_string(), addr::written(opening.client.ip()));
    let asked = admission::Opening {
        service: &opening.service,
        tunnel: &tunnel,
        user: &opening.user,
        hostname: opening.hostname.as_str(),
        client: &client,
        client_port: opening.client.port(),
        udp: opening.udp,
    };
    guest.call_admit(store, asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn opening(user: &str, client: &str) -> Opening {
        Opening {
            service: "server".into(),
            tunnel: Uuid::nil(),
            user: user.into(),
            hostname: Host::empty(),
            client: client.parse().unwrap(),
            udp: false,
            extra: Default::default(),
        }
    }

    #[test]
    fn names_are_checked_and_bounded() {
        let names = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
            hostnames(&texts).map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(
            names(&["A.example", "*.b.example", ".c.example"]).unwrap(),
            ["a.example", "*.b.example", "*.c.example"]
        );
        assert_eq!(names(&[]).unwrap(), [""; 0]);
        for bad in ["", "*", "a b", "a..b", "a.example:80"] {
            assert!(names(&["a.example", bad]).unwrap_err().to_string().contains("no host"), "{bad}");
        }
        assert!(names(&["a"; MAX_HOSTNAMES]).is_ok());
        assert!(names(&["a"; MAX_HOSTNAMES + 1]).unwrap_err().to_string().contains("at most 64"));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_hold_for_the_same_question_and_no_longer() {
        let openings = Openings::new(100);
        let deny = |reason: &str| Verdict::Refuse(Refusal { status: 403, reason: reason.to_owned() });
        let reuse = |ttl_ms, depends_on| Reuse { ttl_ms, depends_on };
        let (ann, other) = (opening("ann", "192.0.2.1:1"), opening("ann", "192.0.2.2:1"));
        openings.put(&ann, &reuse(0, Dependency::empty()), &deny("never"));
        assert_eq!(openings.get(&ann), None);
        openings.put(&ann, &reuse(1000, Dependency::CLIENT), &deny("here"));
        assert_eq!(openings.get(&opening("ann", "192.0.2.1:9")), Some(deny("here")));
        assert_eq!(openings.get(&other), None);
        openings.put(&other, &reuse(2000, Dependency::PATH), &deny("everywhere"));
        assert_eq!(openings.get(&opening("ann", "192.0.2.3:1")), Some(deny("everywhere")));
        for another in [
            opening("bob", "192.0.2.2:1"),
            Opening { service: "b".into(), ..other.clone() },
            Opening { tunnel: Uuid::max(), ..other.clone() },
            Opening { hostname: Host::parse("a").unwrap(), ..other.clone() },
            Opening { udp: true, ..other.clone() },
        ] {
            assert_eq!(openings.get(&another), None, "{another:?}");
        }
        tokio::time::advance(Duration::from_millis(2000)).await;
        assert_eq!(openings.get(&other), None);
    }
}
