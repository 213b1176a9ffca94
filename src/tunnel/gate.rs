//! Who may serve a tunnel, and who may visit one.
//!
//! A tunnel of the list `tunnels` belongs to its owners: knowing its ID is not enough to get its traffic, nor to visit it by that
//! ID. With such a list there are no other tunnels. A plugin, asked about a client whose name is known, can decide in place of the list. Whoever is asked for a
//! name and a password and has none, or a wrong one, gets status 2; who is not the owner, or is denied, 3.

use crate::addr::{Host, Network, Networks};
use crate::auth::{Auther, Authers, Claim, Credential, Login, Source};
use crate::route::hosts::HostPattern;
use crate::route::{Admission, Hostnames, Opening, Verdict};
use crate::wire::relay::{Feature, Request, Status};
use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// One of `tunnels`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// `id`.
    pub id: Uuid,
    /// `credentials` with a password; with no credentials at all the tunnel is whoever's the handler lets in.
    pub credentials: Vec<Credential>,
    /// `credentials` without a password: users of the handler's authers.
    pub users: Vec<String>,
    /// `hostnames` that its connectors may ask for; empty: any.
    pub hostnames: Vec<HostPattern>,
    /// `maxConnectors`, in place of the handler's.
    pub max_connectors: Option<usize>,
}

/// Who is let in.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Whose it is, for those who are asked about users.
    service: String,
    authers: Authers,
    /// Clients that need not say who they are.
    skip: Networks,
    owners: Option<HashMap<Uuid, Owner>>,
    plugin: Option<Arc<dyn Admission>>,
}

#[derive(Debug)]
struct Owner {
    settings: Owned,
    hostnames: Hostnames,
    credentials: Authers,
}

/// A client that may serve a tunnel.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) login: Option<Login>,
    /// In place of the handler's.
    pub(crate) max_connectors: Option<usize>,
    /// Empty: any.
    hostnames: Hostnames,
}

impl Admitted {
    /// Whether it may ask for that name.
    pub(crate) fn may_be_called(&self, host: &Host) -> bool {
        self.hostnames.is_empty() || self.hostnames.iter().any(|pattern| pattern.matches(host))
    }
}

/// Whoever is not let in.
#[derive(Debug, thiserror::Error)]
#[error("{reason}{}", as_user(user.as_deref()))]
pub(crate) struct Denied {
    pub(crate) status: Status,
    reason: Cow<'static, str>,
    user: Option<String>,
}

fn as_user(user: Option<&str>) -> String {
    user.map(|user| format!(", user {user:?}")).unwrap_or_default()
}

impl Denied {
    fn new(status: Status, reason: impl Into<Cow<'static, str>>, auth: Option<(&[u8], &[u8])>) -> Self {
        let user = auth.map(|(user, _)| String::from_utf8_lossy(user).into_owned());
        Self { status, reason: reason.into(), user }
    }
}

impl Gate {
    /// `skip`: clients that are asked for no password; `owned`: the list, if there is one; `plugin`: asked before the list.
    pub(crate) fn new(
        service: &str,
        (authers, skip): (Authers, &[Network]),
        owned: Option<&[Owned]>,
        plugin: Option<Arc<dyn Admission>>,
    ) -> Self {
        let owner = |settings: &Owned| {
            let credentials = settings.credentials.clone();
            let authers =
                (!credentials.is_empty()).then(|| Source::Listed(Arc::new(Auther::inline(credentials))));
            let hostnames = settings.hostnames.as_slice().into();
            let owner =
                Owner { settings: settings.clone(), hostnames, credentials: authers.into_iter().collect() };
            (settings.id, owner)
        };
        let (service, skip) = (service.to_owned(), skip.iter().copied().collect());
        Self { service, authers, skip, owners: owned.map(|owned| owned.iter().map(owner).collect()), plugin }
    }

    fn claim<'a>(&'a self, username: &'a [u8], password: &'a [u8], client: SocketAddr) -> Claim<'a> {
        Claim { username, password, service: &self.service, client }
    }

    /// What is known of the owner of a tunnel, if there is a list; without an entry there the tunnel is nobody's.
    fn owner(&self, tunnel: Uuid) -> Result<Option<&Owner>, &'static str> {
        let Some(owners) = &self.owners else { return Ok(None) };
        owners.get(&tunnel).map(Some).ok_or("the tunnel is not in the list of tunnels")
    }

    /// Whether a client may serve a tunnel; the user in `opening` is filled in. Passwords and plugins take their time, at most `limit`.
    pub(crate) async fn connector(
        &self,
        auth: Option<(&[u8], &[u8])>,
        mut opening: Opening,
        limit: Duration,
    ) -> Result<Admitted, Denied> {
        let owner = self.owner(opening.tunnel);
        let check = async {
            let (login, owns) = self.who(owner.ok().flatten(), auth, opening.client).await?;
            opening.user = login.as_ref().map_or_else(|| "".into(), |login| Arc::clone(&login.user));
            let allowed = self.plugged(opening, auth).await?;
            let owner = match (&allowed, owner, owns) {
                (Some(_), owner, _) => owner.ok().flatten(),
                (None, Ok(owner), true) => owner,
                (None, Ok(_), false) => return Err(Denied::new(Status::Forbidden, NOT_THE_OWNER, auth)),
                (None, Err(reason), _) => return Err(Denied::new(Status::Forbidden, reason, auth)),
            };
            let listed = || owner.map(|owner| Arc::clone(&owner.hostnames)).unwrap_or_default();
            let hostnames = allowed.filter(|names| !names.is_empty()).unwrap_or_else(listed);
            let max_connectors = owner.and_then(|owner| owner.settings.max_connectors);
            Ok(Admitted { login, max_connectors, hostnames })
        };
        in_time(check, auth, limit).await
    }

    /// What the plugin says, if there is one: the names that the client may ask for; `None`: it has no opinion.
    async fn plugged(
        &self,
        opening: Opening,
        auth: Option<(&[u8], &[u8])>,
    ) -> Result<Option<Hostnames>, Denied> {
        let Some(plugin) = &self.plugin else { return Ok(None) };
        match plugin.admit(Arc::new(opening)).await {
            Ok(Verdict::Pass) => Ok(None),
            Ok(Verdict::Use(hostnames)) => Ok(Some(hostnames)),
            Ok(Verdict::Refuse(refusal)) => Err(Denied::new(Status::Forbidden, refusal.reason, auth)),
            Err(error) => Err(Denied::new(Status::InternalError, error.to_string(), auth)),
        }
    }

    /// Whether somebody may visit that tunnel by its ID, as far as names and passwords go. Those who own it may, and all users of
    /// the handler's; of a tunnel that nobody owns, whoever the handler lets in.
    pub(crate) async fn visitor(
        &self,
        request: &Request,
        tunnel: Uuid,
        client: SocketAddr,
        limit: Duration,
    ) -> Result<Option<Login>, Denied> {
        let auth = auth(request);
        let check = async {
            let (login, _) = self.who(self.owner(tunnel).ok().flatten(), auth, client).await?;
            Ok(login)
        };
        in_time(check, auth, limit).await
    }

    /// A user of the handler's, where it asks for one.
    pub(crate) async fn login(
        &self,
        auth: Option<(&[u8], &[u8])>,
        client: SocketAddr,
    ) -> Result<Option<Login>, Denied> {
        if self.authers.is_empty() {
            return Ok(None);
        }
        let skipped = self.skip.contains(client.ip());
        let Some((user, password)) = auth else {
            let denied = || Denied::new(Status::Unauthorized, NO_PASSWORD, None);
            return if skipped { Ok(None) } else { Err(denied()) };
        };
        match self.authers.check(self.claim(user, password, client)).await {
            None if !skipped => Err(Denied::new(Status::Unauthorized, WRONG_PASSWORD, auth)),
            login => Ok(login),
        }
    }

    /// Who a client is, and whether a tunnel of that owner is its own. Where owners are named, everybody has to say.
    async fn who(
        &self,
        owner: Option<&Owner>,
        auth: Option<(&[u8], &[u8])>,
        client: SocketAddr,
    ) -> Result<(Option<Login>, bool), Denied> {
        let Some(owner) = owner.filter(|owner| owner.is_named()) else {
            return Ok((self.login(auth, client).await?, true));
        };
        let Some((user, password)) = auth else {
            return Err(Denied::new(Status::Unauthorized, NO_PASSWORD, None));
        };
        let claim = self.claim(user, password, client);
        if let Some(login) = owner.credentials.check(claim).await {
            return Ok((Some(login), true));
        }
        let login = self.authers.check(claim).await;
        let login = login.ok_or_else(|| Denied::new(Status::Unauthorized, WRONG_PASSWORD, auth))?;
        let owns = owner.settings.users.iter().any(|user| **user == *login.user);
        Ok((Some(login), owns))
    }
}

const NO_PASSWORD: &str = "no user name and password";
const WRONG_PASSWORD: &str = "wrong user name or password";
const NOT_THE_OWNER: &str = "the tunnel belongs to another user";

impl Owner {
    fn is_named(&self) -> bool {
        !self.settings.credentials.is_empty() || !self.settings.users.is_empty()
    }
}

/// Name and password of a request; the last ones count (section 1.2).
pub(crate) fn auth(request: &Request) -> Option<(&[u8], &[u8])> {
    request.features.iter().rev().find_map(|feature| match feature {
        Feature::Auth { username, password } => Some((&username[..], &password[..])),
        _ => None,
    })
}

pub(crate) async fn in_time<T>(
    check: impl Future<Output = Result<T, Denied>>,
    auth: Option<(&[u8], &[u8])>,
    limit: Duration,
) -> Result<T, Denied> {
    let late =
        || Err(Denied::new(Status::Timeout, "passwords and plugins take too long (handshakeTimeout)", auth));
    timeout(limit, check).await.unwrap_or_else(|_| late())
}

/// Runs `work` while the user may be here.
pub(crate) async fn while_allowed(login: Option<&Login>, work: impl Future<Output = ()>) {
    match login {
        None => work.await,
        Some(login) => tokio::select! {
            () = work => {}
            () = login.revoked.cancelled() => {}
        },
    }
}

#[cfg(test)]
mod tests;
