//! The plugins of a configuration: the folder, files elsewhere, and what is bound to them.

use crate::config::{self, Handler, IngressPlugin, PluginFile, Targets};
use crate::plugin::{
    Binding, BoundAdmission, BoundForwarder, Chain, CompiledCache, Counts, FirstLook, Folder, FolderSettings,
    Plugin, Runtime, Status,
};
use crate::route::ingress::Rules;
use crate::route::{Admission, Forwarder, Ingress};
use crate::source::Remote;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What each service asks.
pub(super) type ByService<'a, T> = HashMap<&'a str, Arc<T>>;

/// What there is of plugins in one process. Dropping it ends the watching.
#[derive(Debug)]
pub(super) struct Plugins {
    /// Absent where nothing needs it: the engine sets addresses aside.
    runtime: Option<Runtime>,
    folder: Option<Arc<Folder>>,
    elsewhere: Vec<Arc<Folder>>,
}

impl Plugins {
    pub(super) fn new(config: &config::Config) -> Result<Self> {
        let settings = &config.plugins;
        let of_handler = |service: &config::Service| match &service.handler {
            Handler::Tunnel { plugin, .. } => plugin.is_some(),
            handler => handler.targets().is_some_and(|targets| targets.plugin.is_some()),
        };
        let hop = |hop: &config::ChainHop| hop.plugin.is_some();
        let ingress = |ingress: &config::Ingress| matches!(ingress.plugin, Some(IngressPlugin::Wasm(_)));
        let bound = config.ingresses.iter().any(ingress)
            || config.services.iter().any(of_handler)
            || config.chains.values().any(|chain| chain.hops.iter().any(hop));
        let wanted = bound || settings.folder.is_some();
        let runtime = wanted.then(|| Runtime::new(settings.limits.clone(), cache(settings.cache.as_deref())));
        let runtime = runtime.transpose().context("cannot set up the plugin engine")?;
        let folder = runtime.as_ref().zip(settings.folder.clone());
        let folder = folder.map(|(runtime, folder)| Folder::new(runtime, folder));
        Ok(Self { runtime, folder, elsewhere: Vec::new() })
    }

    /// An ingress: its plugin, or those of the folder, before its rules.
    pub(super) fn ingress(&mut self, ingress: &config::Ingress, rules: Rules) -> Result<Arc<dyn Ingress>> {
        Ok(match (&ingress.plugin, &self.folder) {
            (Some(IngressPlugin::Wasm(plugin)), _) => Arc::new(Chain::bound(self.bind(plugin)?, rules)),
            (Some(IngressPlugin::Process { settings, on_error }), _) => {
                Arc::new(Remote::new(&ingress.name, settings, *on_error, rules)?)
            }
            (None, Some(folder)) => Arc::new(Chain::folder(Arc::clone(folder), rules)),
            (None, None) => Arc::new(rules),
        })
    }

    /// The plugin of a forwarder, or of a hop of a chain.
    pub(super) fn forwarder(&mut self, plugin: &config::Plugin) -> Result<Arc<dyn Forwarder>> {
        Ok(Arc::new(BoundForwarder::new(self.bind(plugin)?, plugin.allow.clone())))
    }

    /// The plugins of the forwarders, by the name of the service.
    pub(super) fn forwarders<'a>(
        &mut self,
        config: &'a config::Config,
    ) -> Result<ByService<'a, dyn Forwarder>> {
        let mut forwarders = HashMap::new();
        for service in &config.services {
            if let Some(Targets { plugin: Some(plugin), .. }) = service.handler.targets() {
                forwarders.insert(service.name.as_str(), self.forwarder(plugin)?);
            }
        }
        Ok(forwarders)
    }

    /// Who is asked about clients that open a tunnel, by the name of the service.
    pub(super) fn openings<'a>(
        &mut self,
        config: &'a config::Config,
    ) -> Result<ByService<'a, dyn Admission>> {
        let mut openings = HashMap::new();
        for service in &config.services {
            if let Handler::Tunnel { plugin, .. } = &service.handler {
                let asked = self.admission(plugin.as_deref())?;
                openings.extend(asked.map(|asked| (service.name.as_str(), asked)));
            }
        }
        Ok(openings)
    }

    /// The handler's plugin, or those of the folder.
    fn admission(&mut self, plugin: Option<&config::Plugin>) -> Result<Option<Arc<dyn Admission>>> {
        Ok(match (plugin, &self.folder) {
            (Some(plugin), _) => Some(Arc::new(BoundAdmission::bound(self.bind(plugin)?))),
            (None, Some(folder)) => Some(Arc::new(BoundAdmission::folder(Arc::clone(folder)))),
            (None, None) => None,
        })
    }

    fn bind(&mut self, bound: &config::Plugin) -> Result<Binding> {
        let config = bound.config.as_deref();
        let plugin = match (&bound.file, &self.folder) {
            (PluginFile::Named(name), Some(folder)) => folder.plugin(name, config),
            (PluginFile::Named(name), None) => bail!("plugin {name:?} without a plugin folder"),
            (PluginFile::At(path), _) => self.at(path, config)?,
        };
        Ok(Binding::new(plugin, bound.on_error))
    }

    /// A file elsewhere is watched like a folder that holds nothing else.
    fn at(&mut self, path: &Path, config: Option<&str>) -> Result<Arc<Plugin>> {
        let name =
            path.file_name().and_then(|file| file.to_str()).and_then(|file| file.strip_suffix(".wasm"));
        let (Some(name), Some(dir), Some(runtime)) = (name, path.parent(), &self.runtime) else {
            bail!("plugin path {}: expected the path of a file NAME.wasm", path.display());
        };
        let settings = FolderSettings { only: Some(name.to_owned()), ..FolderSettings::new(dir.to_owned()) };
        let folder = Folder::new(runtime, settings);
        let plugin = folder.plugin(name, config);
        self.elsewhere.push(folder);
        Ok(plugin)
    }

    /// What there is to say about each plugin.
    pub(super) fn status(&self) -> Vec<Status> {
        self.folder.iter().chain(&self.elsewhere).flat_map(|folder| folder.status()).collect()
    }

    /// Begins to watch, and waits for a time for what is there: ports that open without it would route otherwise.
    pub(super) fn watch(&self) {
        let folders = self.folder.iter().chain(&self.elsewhere);
        // All of them load at once.
        let looks: Vec<_> = folders.map(Folder::watch).collect();
        looks.into_iter().for_each(FirstLook::wait);
    }
}

/// Writes what the plugins have done to the log, every so often and at the end.
pub(super) async fn tell(plugins: Plugins, every: Duration, stop: CancellationToken) {
    let mut told = HashMap::new();
    loop {
        let ended = timeout(every, stop.cancelled()).await.is_ok();
        for status in plugins.status() {
            // One that was not asked meanwhile says nothing new.
            let key = (status.name.clone(), status.config.clone());
            if told.insert(key, status.clone()).as_ref() != Some(&status) {
                log(&status);
            }
        }
        if ended {
            return;
        }
    }
}

fn log(status: &Status) {
    let Status { name, config, version, kinds, last_swap, last_error, counts, counters } = status;
    let Counts { calls, errors, traps, overruns, recycled, cache_hits, swaps, .. } = counts;
    let mean = if *calls == 0 { 0.0 } else { counts.call_seconds / *calls as f64 };
    info!(
        plugin = name,
        config,
        version,
        ?kinds,
        calls,
        errors,
        traps,
        overruns,
        cache_hits,
        recycled,
        swaps,
        mean_seconds = mean,
        latency = ?counts.latency,
        memory = counts.memory,
        last_swap,
        last_error,
        ?counters,
        "plugin status"
    );
}

fn cache(dir: Option<&Path>) -> CompiledCache {
    let Some(dir) = dir.map(Path::to_owned).or_else(CompiledCache::default_dir) else {
        return CompiledCache::default();
    };
    CompiledCache::open(&dir).unwrap_or_else(|error| {
        warn!(%error, "compiled plugins are not kept: every start compiles them again");
        CompiledCache::default()
    })
}
