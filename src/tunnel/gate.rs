//! Who may serve a tunnel, and who may visit one.
//!
//! A tunnel of the list `tunnels` belongs to its owners: knowing its ID is not enough to get its traffic. With such a list there
//! are no other tunnels. Whoever is asked for a name and a password and has none, or a wrong one, gets status 2; who is not the
//! owner, 3.

use crate::addr::Host;
use crate::auth::{Auther, Authers, Claim, Credential, Login, Source};
use crate::route::hosts::HostPattern;
use crate::wire::relay::{Feature, Request, Status};
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
    owners: Option<HashMap<Uuid, Owner>>,
}

#[derive(Debug)]
pub(crate) struct Owner {
    settings: Owned,
    credentials: Authers,
}

/// Whoever is not let in.
#[derive(Debug, thiserror::Error)]
#[error("{reason}{}", as_user(user.as_deref()))]
pub(crate) struct Denied {
    pub(crate) status: Status,
    reason: &'static str,
    user: Option<String>,
}

fn as_user(user: Option<&str>) -> String {
    user.map(|user| format!(", user {user:?}")).unwrap_or_default()
}

impl Denied {
    fn new(status: Status, reason: &'static str, auth: Option<(&[u8], &[u8])>) -> Self {
        let user = auth.map(|(user, _)| String::from_utf8_lossy(user).into_owned());
        Self { status, reason, user }
    }
}

impl Gate {
    /// `owned`: the list, if there is one.
    pub(crate) fn new(service: &str, authers: Authers, owned: Option<&[Owned]>) -> Self {
        let owner = |settings: &Owned| {
            let credentials = settings.credentials.clone();
            let authers =
                (!credentials.is_empty()).then(|| Source::Listed(Arc::new(Auther::inline(credentials))));
            (settings.id, Owner { settings: settings.clone(), credentials: authers.into_iter().collect() })
        };
        let service = service.to_owned();
        Self { service, authers, owners: owned.map(|owned| owned.iter().map(owner).collect()) }
    }

    fn claim<'a>(&'a self, username: &'a [u8], password: &'a [u8], client: SocketAddr) -> Claim<'a> {
        Claim { username, password, service: &self.service, client }
    }

    /// What is known of the owner of a tunnel, if there is a list; without an entry there the tunnel is nobody's.
    fn owner(&self, tunnel: Uuid) -> Result<Option<&Owner>, &'static str> {
        let Some(owners) = &self.owners else { return Ok(None) };
        owners.get(&tunnel).map(Some).ok_or("the tunnel is not in the list of tunnels")
    }

    /// Whether a client may serve that tunnel. A hash of a password takes its time, at most `limit`.
    pub(crate) async fn connector(
        &self,
        request: &Request,
        tunnel: Uuid,
        client: SocketAddr,
        limit: Duration,
    ) -> Result<(Option<Login>, Option<&Owner>), Denied> {
        let auth = auth(request);
        let owner = self.owner(tunnel).map_err(|reason| Denied::new(Status::Forbidden, reason, auth))?;
        let login = match owner {
            Some(owner) if owner.is_named() => {
                in_time(self.owners_login(owner, auth, client), auth, limit).await?
            }
            _ => in_time(self.login(auth, client), auth, limit).await?,
        };
        Ok((login, owner))
    }

    /// Whether somebody may visit that tunnel, as far as names and passwords go: its owner may, too.
    pub(crate) async fn visitor(
        &self,
        request: &Request,
        tunnel: Uuid,
        client: SocketAddr,
        limit: Duration,
    ) -> Result<Option<Login>, Denied> {
        let auth = auth(request);
        let check = async {
            if let (Ok(Some(owner)), Some((user, password))) = (self.owner(tunnel), auth)
                && let Some(login) = owner.credentials.check(self.claim(user, password, client)).await
            {
                return Ok(Some(login));
            }
            self.login(auth, client).await
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
        let Some((user, password)) = auth else {
            return Err(Denied::new(Status::Unauthorized, NO_PASSWORD, None));
        };
        let login = self.authers.check(self.claim(user, password, client)).await;
        login.map(Some).ok_or_else(|| Denied::new(Status::Unauthorized, WRONG_PASSWORD, auth))
    }

    async fn owners_login(
        &self,
        owner: &Owner,
        auth: Option<(&[u8], &[u8])>,
        client: SocketAddr,
    ) -> Result<Option<Login>, Denied> {
        let Some((user, password)) = auth else {
            return Err(Denied::new(Status::Unauthorized, NO_PASSWORD, None));
        };
        let claim = self.claim(user, password, client);
        if let Some(login) = owner.credentials.check(claim).await {
            return Ok(Some(login));
        }
        match self.authers.check(claim).await {
            Some(login) if owner.settings.users.iter().any(|user| **user == *login.user) => Ok(Some(login)),
            Some(_) => Err(Denied::new(Status::Forbidden, "the tunnel belongs to another user", auth)),
            None => Err(Denied::new(Status::Unauthorized, WRONG_PASSWORD, auth)),
        }
    }
}

const NO_PASSWORD: &str = "no user name and password";
const WRONG_PASSWORD: &str = "wrong user name or password";

impl Owner {
    fn is_named(&self) -> bool {
        !self.settings.credentials.is_empty() || !self.settings.users.is_empty()
    }

    /// Whether its connectors may ask for that name.
    pub(crate) fn may_be_called(&self, host: &Host) -> bool {
        let names = &self.settings.hostnames;
        names.is_empty() || names.iter().any(|pattern| pattern.matches(host))
    }

    pub(crate) fn max_connectors(&self) -> Option<usize> {
        self.settings.max_connectors
    }
}

/// Name and password of a request; the last ones count (section 1.2).
pub(crate) fn auth(request: &Request) -> Option<(&[u8], &[u8])> {
    request.features.iter().rev().find_map(|feature| match feature {
        Feature::Auth { username, password } => Some((&username[..], &password[..])),
        _ => None,
    })
}

pub(crate) async fn in_time(
    check: impl Future<Output = Result<Option<Login>, Denied>>,
    auth: Option<(&[u8], &[u8])>,
    limit: Duration,
) -> Result<Option<Login>, Denied> {
    let late = || {
        Err(Denied::new(Status::Timeout, "passwords are being checked for too long (handshakeTimeout)", auth))
    };
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
