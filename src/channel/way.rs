//! What a connection goes through that may prove only later to lead nowhere.

use std::sync::{Arc, OnceLock};

/// The servers on the way whose answer is not waited for. What fails on such a way may be no fault of whoever is at its end.
#[derive(Debug, Clone, Default)]
pub struct Way(Option<Arc<Step>>);

#[derive(Debug)]
struct Step {
    before: Way,
    failure: OnceLock<String>,
}

impl Way {
    /// On from here through a server that may turn out to fail.
    pub fn step(&self) -> Self {
        Self(Some(Arc::new(Step { before: self.clone(), failure: OnceLock::new() })))
    }

    /// The server of the last step has failed.
    pub fn fail(&self, why: String) {
        if let Some(step) = &self.0 {
            // It fails once.
            let _ = step.failure.set(why);
        }
    }

    /// Which server has failed, and why: the first on the way.
    pub fn failure(&self) -> Option<&str> {
        let step = self.0.as_ref()?;
        step.before.failure().or_else(|| step.failure.get().map(String::as_str))
    }
}
