use super::*;
use crate::auth::Secret;
use crate::route::{Admitting, Refusal, RouteError};
use crate::wire::relay::Command;

/// Answers what the name asked for says, and denies whoever is not `user`.
#[derive(Debug)]
struct Fake {
    user: &'static str,
}

impl Admission for Fake {
    fn admit(&self, opening: Arc<Opening>) -> Admitting {
        let known = *opening.user == *self.user;
        Box::pin(async move {
            let name = |text: &str| HostPattern::from_filter(text).unwrap().unwrap();
            let deny = |reason: &str| Ok(Verdict::Refuse(Refusal { status: 403, reason: reason.to_owned() }));
            match opening.hostname.as_str() {
                _ if !known => deny("another user"),
                "pass" => Ok(Verdict::Pass),
                "allow" => Ok(Verdict::Use(Arc::from([]))),
                "names" => Ok(Verdict::Use(Arc::from([name("plugin.example")]))),
                "deny" => deny("no"),
                "late" => std::future::pending().await,
                _ => Err(RouteError("trap".to_owned())),
            }
        })
    }
}

const LISTED: Uuid = Uuid::from_u128(1);
const OPEN: Uuid = Uuid::from_u128(2);
const UNLISTED: Uuid = Uuid::from_u128(3);

fn credential(username: &str, password: &str) -> Credential {
    Credential { username: username.to_owned(), secret: Secret::parse(password).unwrap() }
}

fn owned(id: Uuid, users: &[&str], credentials: Vec<Credential>) -> Owned {
    let hostnames = vec![HostPattern::from_filter("listed.example").unwrap().unwrap()];
    let users = users.iter().map(ToString::to_string).collect();
    Owned { id, credentials, users, hostnames, max_connectors: Some(7) }
}

/// Users ann, bob; one tunnel of ann's and of one with a password of its own, one that is open to users.
fn gate(plugin: Option<&'static str>, skip: &[&str]) -> Gate {
    let users = vec![credential("ann", "one"), credential("bob", "two")];
    let authers = [Source::Listed(Arc::new(Auther::inline(users)))].into_iter().collect();
    let skip: Vec<_> = skip.iter().map(|network| network.parse().unwrap()).collect();
    let owned = [owned(LISTED, &["ann"], vec![credential("own", "three")]), owned(OPEN, &[], Vec::new())];
    let plugin = plugin.map(|user| Arc::new(Fake { user }) as Arc<dyn Admission>);
    Gate::new("server", (authers, &skip), Some(&owned), plugin)
}

fn opening(tunnel: Uuid, host: &str) -> Opening {
    Opening {
        service: "server".into(),
        tunnel,
        user: "".into(),
        hostname: Host::parse(host).unwrap(),
        client: "192.0.2.1:4000".parse().unwrap(),
        udp: false,
        extra: Default::default(),
    }
}

/// The user, the bound and the name that may be asked for; or the status.
async fn come(gate: &Gate, auth: Option<(&str, &str)>, opening: Opening) -> String {
    let auth = auth.map(|(user, password)| (user.as_bytes(), password.as_bytes()));
    match gate.connector(auth, opening, Duration::from_secs(10)).await {
        Ok(admitted) => {
            let user = admitted.login.as_ref().map_or("-", |login| &*login.user);
            let names = ["listed.example", "plugin.example"]
                .map(|n| admitted.may_be_called(&Host::parse(n).unwrap()));
            let names = match names {
                [true, true] => "any",
                [true, false] => "listed",
                [false, true] => "plugin",
                [false, false] => "none",
            };
            let max = admitted.max_connectors.map(|max| format!(" {max}")).unwrap_or_default();
            format!("{user} {names}{max}")
        }
        Err(denied) => format!("{} {denied}", u8::from(denied.status)),
    }
}

const ANN: Option<(&str, &str)> = Some(("ann", "one"));
const BOB: Option<(&str, &str)> = Some(("bob", "two"));

#[tokio::test]
async fn without_a_plugin_the_list_decides() {
    let gate = gate(None, &[]);
    for (auth, tunnel, expected) in [
        (ANN, LISTED, "ann listed 7"),
        (Some(("own", "three")), LISTED, "own listed 7"),
        (BOB, LISTED, "3 the tunnel belongs to another user, user \"bob\""),
        (Some(("ann", "two")), LISTED, "2 wrong user name or password, user \"ann\""),
        (None, LISTED, "2 no user name and password"),
        (BOB, OPEN, "bob listed 7"),
        (Some(("own", "three")), OPEN, "2 wrong user name or password, user \"own\""),
        (None, OPEN, "2 no user name and password"),
        (ANN, UNLISTED, "3 the tunnel is not in the list of tunnels, user \"ann\""),
        (Some(("ann", "x")), UNLISTED, "2 wrong user name or password, user \"ann\""),
    ] {
        assert_eq!(come(&gate, auth, opening(tunnel, "any.example")).await, expected, "{auth:?} {tunnel}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_decides_before_the_list_and_after_the_password() {
    let gate = gate(Some("bob"), &[]);
    for (auth, tunnel, host, expected) in [
        (BOB, LISTED, "pass", "3 the tunnel belongs to another user, user \"bob\""),
        (BOB, LISTED, "allow", "bob listed 7"),
        (BOB, LISTED, "names", "bob plugin 7"),
        (BOB, LISTED, "deny", "3 no, user \"bob\""),
        (BOB, OPEN, "pass", "bob listed 7"),
        (BOB, UNLISTED, "pass", "3 the tunnel is not in the list of tunnels, user \"bob\""),
        (BOB, UNLISTED, "allow", "bob any"),
        (BOB, UNLISTED, "names", "bob plugin"),
        (BOB, OPEN, "trap", "8 trap, user \"bob\""),
        (BOB, OPEN, "late", "4 passwords and plugins take too long (handshakeTimeout), user \"bob\""),
        // The owner by the list, and not by the plugin.
        (ANN, LISTED, "allow", "3 another user, user \"ann\""),
        (Some(("bob", "x")), OPEN, "allow", "2 wrong user name or password, user \"bob\""),
        (None, OPEN, "allow", "2 no user name and password"),
    ] {
        assert_eq!(come(&gate, auth, opening(tunnel, host)).await, expected, "{auth:?} {tunnel} {host}");
    }
}

#[tokio::test]
async fn clients_of_skipauth_need_no_password_but_for_a_tunnel_with_owners() {
    let gate = gate(None, &["192.0.2.0/24"]);
    for (auth, tunnel, expected) in [
        (None, OPEN, "- listed 7"),
        (Some(("ann", "wrong")), OPEN, "- listed 7"),
        (ANN, OPEN, "ann listed 7"),
        (None, LISTED, "2 no user name and password"),
        (None, UNLISTED, "3 the tunnel is not in the list of tunnels"),
    ] {
        assert_eq!(come(&gate, auth, opening(tunnel, "")).await, expected, "{auth:?} {tunnel}");
    }
    let elsewhere = Opening { client: "198.51.100.1:1".parse().unwrap(), ..opening(OPEN, "") };
    assert_eq!(come(&gate, None, elsewhere).await, "2 no user name and password");
    let ip = |text: &str| format!("{text}:1").parse().unwrap();
    assert!(gate.login(None, ip("192.0.2.9")).await.is_ok_and(|login| login.is_none()));
    assert!(gate.login(None, ip("[::ffff:192.0.2.9]")).await.is_ok());
    assert!(gate.login(None, ip("203.0.113.1")).await.is_err());
    // The plugin is told of nobody.
    let gate = self::gate(Some(""), &["192.0.2.1"]);
    assert_eq!(come(&gate, None, opening(UNLISTED, "allow")).await, "- any");
}

/// The user of a visitor, or the status.
async fn visit(gate: &Gate, auth: Option<(&str, &str)>, tunnel: Uuid) -> String {
    let auth =
        auth.map(|(user, password)| Feature::Auth { username: user.into(), password: password.into() });
    let request = Request { command: Command::Connect, udp: false, features: auth.into_iter().collect() };
    let client = "192.0.2.1:4000".parse().unwrap();
    match gate.visitor(&request, tunnel, client, Duration::from_secs(10)).await {
        Ok(login) => login.map_or_else(|| "-".to_owned(), |login| login.user.to_string()),
        Err(denied) => format!("{} {denied}", u8::from(denied.status)),
    }
}

const NOBODY: &str = "2 no user name and password";

#[tokio::test]
async fn a_tunnel_with_owners_is_visited_by_them_and_by_users_of_the_handler() {
    let own = Some(("own", "three"));
    let unasked = Gate::new(
        "server",
        (Authers::default(), &[]),
        Some(&[owned(LISTED, &[], vec![credential("own", "three")]), owned(OPEN, &[], Vec::new())]),
        None,
    );
    let skipping = gate(None, &["192.0.2.0/24"]);
    let asking = gate(None, &[]);
    for (gate, auth, tunnel, expected) in [
        (&asking, BOB, LISTED, "bob"),
        (&asking, own, LISTED, "own"),
        (&asking, own, OPEN, "2 wrong user name or password, user \"own\""),
        (&asking, Some(("own", "x")), LISTED, "2 wrong user name or password, user \"own\""),
        (&asking, None, LISTED, NOBODY),
        (&asking, None, OPEN, NOBODY),
        (&skipping, None, LISTED, NOBODY),
        (&skipping, None, OPEN, "-"),
        // The handler asks nobody: where there are owners, they are the only visitors.
        (&unasked, own, LISTED, "own"),
        (&unasked, Some(("own", "x")), LISTED, "2 wrong user name or password, user \"own\""),
        (&unasked, BOB, LISTED, "2 wrong user name or password, user \"bob\""),
        (&unasked, None, LISTED, NOBODY),
        (&unasked, None, OPEN, "-"),
        (&unasked, BOB, OPEN, "-"),
        (&unasked, None, UNLISTED, "-"),
    ] {
        assert_eq!(visit(gate, auth, tunnel).await, expected, "{auth:?} {tunnel}");
    }
}
