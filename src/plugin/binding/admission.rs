//! A tunnel server's plugins: whether a client may open a tunnel.

use super::{Binding, Plugins, Question};
use crate::plugin::Folder;
use crate::plugin::ask::Generation;
use crate::route::{Admission, Admitting, Hostnames, Opening, Refusal, RouteError, Verdict};
use std::sync::Arc;

/// Plugins that are asked in their order, until one has an opinion; what then counts is the configuration's business.
#[derive(Debug)]
pub struct BoundAdmission(Plugins);

impl BoundAdmission {
    /// Asks the bound plugin.
    pub fn bound(binding: Binding) -> Self {
        Self(Plugins::Bound([binding].into()))
    }

    /// Asks whatever lies in the folder.
    pub fn folder(folder: Arc<Folder>) -> Self {
        Self(Plugins::Folder(folder))
    }
}

impl Admission for BoundAdmission {
    fn admit(&self, opening: Arc<Opening>) -> Admitting {
        let bindings = match &self.0 {
            Plugins::Bound(bindings) => Arc::clone(bindings),
            Plugins::Folder(folder) => folder.admission(),
        };
        Box::pin(async move {
            for binding in bindings.iter() {
                match binding.admit(&opening).await? {
                    Verdict::Pass => {}
                    decided => return Ok(decided),
                }
            }
            Ok(Verdict::Pass)
        })
    }
}

impl Binding {
    async fn admit(&self, opening: &Arc<Opening>) -> Result<Verdict<Hostnames>, RouteError> {
        let ask = |generation: &Arc<Generation>| generation.admit(opening);
        let own = || -> Question<_> {
            let opening = Arc::clone(opening);
            Box::new(move |generation| generation.admit(&opening))
        };
        let answer = self.ask(ask, own).wait().await.map_err(|error| self.error(&error))?;
        Ok(match answer {
            None => Verdict::Pass,
            Some(Verdict::Refuse(Refusal { status, reason })) => {
                let reason = format!("plugin {:?}: {reason}", self.plugin.name());
                Verdict::Refuse(Refusal { status, reason })
            }
            Some(verdict) => verdict,
        })
    }
}
