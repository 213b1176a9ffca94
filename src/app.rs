//! A checked configuration to running services; the only place that knows every part.

mod door;
mod flows;
mod plugins;
mod quic;
mod rules;
mod users;

use crate::acme::{self, Acme};
use crate::admission::Admission;
use crate::auth::{Auther, Authers, Source};
use crate::chain::Chain;
use crate::channel::Kind;
use crate::config::{self, Config, Handler, Listener as ListenerConfig, Service, Targets};
use crate::entrypoint::{self, Entrypoint};
use crate::forward::{Forward, Treatments};
use crate::http;
use crate::net::Conn;
use crate::net::listen::Permit;
use crate::route::hop::Hop;
use crate::route::ingress::{Rule, Table};
use crate::route::{self, Forwarder, Ingress};
use crate::shutdown::Shutdown;
use crate::terminate::{self, Terminator};
use crate::tunnel;
use crate::tunnel::client::{Accepted, Client};
use crate::tunnel::gate::Gate;
use crate::tunnel::registry::Registry;
use crate::tunnel::server::pipe_limits;
use crate::whoami::Whoami;
use anyhow::{Context, Result};
use door::open;
use futures_util::future::{Either, join_all};
use plugins::{ByService, Plugins};
use std::collections::HashMap;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// How long ports wait for lists on the network to be read.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// What is wrong with the files that lists are kept in, without which nothing starts.
pub fn check(config: &Config) -> Vec<anyhow::Error> {
    let mut checked = Vec::new();
    for ingress in &config.ingresses {
        checked.push(rules::check(ingress).with_context(|| of_ingress(ingress)));
    }
    for (name, auther) in &config.authers {
        checked.push(users::check(auther).with_context(|| of_auther(name)));
    }
    for (name, settings) in &config.admissions {
        checked.push(Admission::new(settings).map(drop).with_context(|| of_admission(name)));
    }
    let mut wrong: Vec<_> = checked.into_iter().filter_map(Result::err).collect();
    wrong.sort_by_cached_key(ToString::to_string);
    wrong
}

fn of_ingress(ingress: &config::Ingress) -> String {
    format!("ingress {:?}", ingress.name)
}

fn of_auther(name: &str) -> String {
    format!("auther {name:?}")
}

fn of_admission(name: &str) -> String {
    format!("admission {name:?}")
}

/// Opens every port and starts every service; they end by `shutdown`.
pub async fn start(config: Config, shutdown: &Shutdown) -> Result<()> {
    let mut plugins = Plugins::new(&config)?;
    let (mut ingresses, mut looks) = (HashMap::new(), Vec::new());
    for ingress in &config.ingresses {
        let rules = rules::rules(ingress, shutdown, &mut looks).with_context(|| of_ingress(ingress))?;
        let asked = plugins.ingress(ingress, rules).with_context(|| of_ingress(ingress))?;
        ingresses.insert(ingress.name.as_str(), asked);
    }
    let (forwarders, openings) = (plugins.forwarders(&config)?, plugins.openings(&config)?);
    let mut chains = HashMap::new();
    for (name, chain) in &config.chains {
        chains.insert(name.as_str(), Arc::new(self::chain(chain, &mut plugins, shutdown)?));
    }
    let plugins = spawn_blocking(move || {
        plugins.watch();
        plugins
    });
    let plugins = plugins.await?;
    let mut authers = HashMap::new();
    for (name, settings) in &config.authers {
        let auther = users::auther(name, settings, shutdown, &mut looks);
        authers.insert(name.as_str(), auther.with_context(|| of_auther(name))?);
    }
    let mut admissions = HashMap::new();
    for (name, settings) in &config.admissions {
        let admission = Arc::new(Admission::new(settings).with_context(|| of_admission(name))?);
        shutdown.tasks.spawn(Arc::clone(&admission).follow(shutdown.stop.clone()));
        admissions.insert(name.as_str(), admission);
    }
    // Ports that open without the rules would turn visitors away; those that stay away for longer come later.
    drop(timeout(FIRST_LOOK, join_all(looks)).await);
    let (acme, node) = (Mutex::default(), Uuid::new_v4());
    let app = App { admissions, authers, ingresses, forwarders, openings, chains, acme, node, shutdown };
    // All ports first: a file that cannot run does not run in part.
    let mut parts = Vec::new();
    for service in &config.services {
        parts.push(app.service(service).await.with_context(|| format!("service {:?}", service.name))?);
    }
    for part in parts.into_iter().flatten() {
        shutdown.tasks.spawn(part);
    }
    for acme in app.acme.into_inner().unwrap_or_else(PoisonError::into_inner) {
        shutdown.tasks.spawn(acme.run(shutdown.stop.clone()));
    }
    let every = config.plugins.status_interval;
    shutdown.tasks.spawn(plugins::tell(plugins, every, shutdown.stop.clone()));
    Ok(())
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
type Ingresses<'a> = HashMap<&'a str, Arc<dyn Ingress>>;

fn table(rules: &[Rule]) -> Arc<dyn Ingress> {
    // What is wrong in a rule was said when the configuration was checked.
    Arc::new(Table::new(rules).0)
}

fn chain(chain: &config::Chain, plugins: &mut Plugins, shutdown: &Shutdown) -> Result<Chain> {
    let mut hops = Vec::new();
    for hop in &chain.hops {
        let forwarder = hop.plugin.as_ref().map(|plugin| plugins.forwarder(plugin)).transpose()?;
        hops.push((&hop.settings, forwarder));
    }
    Ok(Chain::new(hops, shutdown)?)
}

struct App<'a> {
    /// By name.
    admissions: HashMap<&'a str, Arc<Admission>>,
    /// By name.
    authers: HashMap<&'a str, Source>,
    ingresses: Ingresses<'a>,
    /// By the name of the service.
    forwarders: ByService<'a, dyn Forwarder>,
    /// By the name of the service: who is asked about clients that open a tunnel.
    openings: ByService<'a, dyn route::Admission>,
    /// By name.
    chains: HashMap<&'a str, Arc<Chain>>,
    acme: Mutex<Vec<Arc<Acme>>>,
    /// This process in `Gost-Forwarded-Node`.
    node: Uuid,
    shutdown: &'a Shutdown,
}

impl App<'_> {
    fn chain(&self, name: &str) -> Result<Arc<Chain>> {
        self.chains.get(name).cloned().with_context(|| format!("there is no chain {name:?}"))
    }

    /// The tasks of one service, its ports open.
    async fn service(&self, service: &Service) -> Result<Vec<Task>> {
        let name = service.name.clone();
        let shutdown = self.shutdown.clone();
        match &service.handler {
            Handler::Forward(targets) => {
                let forward = Arc::new(self.forward(service, targets)?);
                if service.listener.is_udp() {
                    return Ok(vec![self.flows(service, forward).await?]);
                }
                self.either(service, move |conn, permit| Arc::clone(&forward).serve(conn, permit)).await
            }
            Handler::Whoami(settings) => {
                let whoami = Arc::new(Whoami::new(name, settings.clone(), shutdown.stop));
                self.either(service, move |conn, permit| {
                    let whoami = Arc::clone(&whoami);
                    async move { whoami.serve(conn, permit).await }
                })
                .await
            }
            Handler::Relay { settings, auth, targets, fixed } => {
                let forward = self.forward(service, targets)?;
                let targets = tunnel::relay::Targets { forward, fixed: *fixed };
                let gate = Gate::new(&service.name, (self.authers(auth)?, &auth.skip), None, None);
                let settings = settings.clone();
                let server = tunnel::relay::Server { service: name, settings, targets, gate, shutdown };
                let server = Arc::new(server);
                let task = self.port(service, move |conn, permit| {
                    let server = Arc::clone(&server);
                    async move { server.serve(conn, permit).await }
                });
                Ok(vec![task.await?])
            }
            Handler::Tunnel { settings, entrypoints, tls, rules, auth, owned, .. } => {
                let plugin = self.openings.get(service.name.as_str()).cloned();
                let asked = (self.authers(auth)?, &*auth.skip);
                let gate = Gate::new(&service.name, asked, owned.as_deref(), plugin);
                self.tunnel(service, settings, (entrypoints, tls.as_deref()), rules, gate).await
            }
        }
    }

    /// Whom a handler asks who may use it.
    fn authers(&self, auth: &config::Auth) -> Result<Authers> {
        let inline = || Source::Listed(Arc::new(Auther::inline(auth.users.clone())));
        let inline = (!auth.users.is_empty()).then(|| Ok(inline()));
        let named = auth.authers.iter().map(|name| {
            self.authers.get(name.as_str()).cloned().with_context(|| format!("there is no auther {name:?}"))
        });
        inline.into_iter().chain(named).collect()
    }

    fn terminator(&self, settings: Option<&terminate::Settings>) -> Result<Option<Arc<Terminator>>> {
        let Some(settings) = settings else { return Ok(None) };
        let acme = settings.acme.as_ref().map(|settings| self.acme(settings)).transpose()?;
        Ok(Some(Arc::new(Terminator::new(settings, acme)?)))
    }

    /// Services that ask for the same certificates have them together.
    fn acme(&self, settings: &acme::Settings) -> Result<Arc<Acme>> {
        let mut all = self.acme.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|known| known.settings == *settings) {
            return Ok(Arc::clone(known));
        }
        let acme = Arc::new(Acme::new(settings)?);
        all.push(Arc::clone(&acme));
        Ok(acme)
    }

    fn forward(&self, service: &Service, targets: &Targets) -> Result<Forward> {
        let chain = match &targets.chain {
            Some(name) => self.chain(name)?,
            None => Arc::new(Chain::straight()),
        };
        let settings = targets.settings.clone();
        let port = http::Port {
            service: service.name.clone(),
            settings: settings.http.clone(),
            shared: settings.http.share_upstreams.then(Arc::default),
            pipe: pipe_limits(settings.half_close_timeout, settings.idle_timeout),
            stop: self.shutdown.stop.clone(),
        };
        Ok(Forward {
            port,
            settings,
            terminator: self.terminator(targets.tls.as_ref())?,
            hop: Hop::new(targets.hop.clone()),
            treatments: Treatments::new(&targets.hop, &targets.nodes)?,
            forwarder: self.forwarders.get(service.name.as_str()).cloned(),
            chain,
            metadata: Arc::clone(&service.metadata),
            since: Instant::now(),
        })
    }

    async fn tunnel(
        &self,
        service: &Service,
        settings: &tunnel::server::Settings,
        (entrypoints, tls): (&[entrypoint::Settings], Option<&terminate::Settings>),
        rules: &[Rule],
        gate: Gate,
    ) -> Result<Vec<Task>> {
        let registry = Arc::new(Registry::default());
        let inline = (!rules.is_empty()).then(|| table(rules));
        let ingress = |name: &Option<String>| {
            name.as_ref()
                .and_then(|name| self.ingresses.get(name.as_str()))
                .cloned()
                .or_else(|| inline.clone())
        };
        let terminator = self.terminator(tls)?;
        let mut tasks = Vec::new();
        for settings_of_port in entrypoints {
            let listener = open(&settings_of_port.listen, &service.name, "entrypoint", Kind::TCP).await?;
            let port = http::Port {
                service: service.name.clone(),
                settings: settings_of_port.http.clone(),
                shared: None,
                pipe: pipe_limits(settings_of_port.half_close_timeout, settings_of_port.idle_timeout),
                stop: self.shutdown.stop.clone(),
            };
            let entrypoint = Arc::new(Entrypoint {
                port,
                settings: settings_of_port.clone(),
                terminator: terminator.clone(),
                ingress: ingress(&settings_of_port.ingress),
                metadata: Arc::clone(&service.metadata),
                registry: Arc::clone(&registry),
                node: self.node,
            });
            let serve = move |conn, permit| Arc::clone(&entrypoint).serve(conn, permit);
            let task = self.accept(service, listener, &settings_of_port.admissions, serve);
            tasks.push(task?);
        }
        let server = Arc::new(tunnel::server::Server {
            service: service.name.clone(),
            settings: settings.clone(),
            ingress: ingress(&settings.ingress),
            metadata: Arc::clone(&service.metadata),
            registry,
            gate,
            shutdown: self.shutdown.clone(),
        });
        tasks.push(self.port(service, move |conn, permit| Arc::clone(&server).serve(conn, permit)).await?);
        Ok(tasks)
    }

    /// A handler that takes connections from a port as well as from a tunnel.
    async fn either<S, F>(&self, service: &Service, serve: S) -> Result<Vec<Task>>
    where
        S: Fn(Conn, Option<Permit>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let ListenerConfig::Rtcp { client: settings, chain } = &service.listener else {
            return Ok(vec![self.port(service, move |conn, permit| serve(conn, Some(permit))).await?]);
        };
        let (settings, chain) = (settings.clone(), self.chain(chain)?);
        let client =
            Client { service: service.name.clone(), settings, chain, shutdown: self.shutdown.clone() };
        Ok(vec![Box::pin(async move {
            client
                .run(move |accepted| match accepted {
                    Accepted::Conn(conn) => Either::Left(serve(conn, None)),
                    Accepted::Flow(_) => Either::Right(ready(())),
                })
                .await;
        })])
    }
}
