//! Those who know users: lists that are followed, and processes that are asked.

use crate::auth::{Auther, Source};
use crate::config;
use crate::lines::Listed;
use crate::shutdown::Shutdown;
use crate::source::{self, FirstLook, RemoteAuther};
use anyhow::Result;
use std::sync::Arc;

/// Reads the file, if there is one, and follows it and the other lists until `shutdown`. `looks` grows by those that are not read
/// when this returns.
pub(super) fn auther(
    name: &str,
    auther: &config::Auther,
    shutdown: &Shutdown,
    looks: &mut Vec<FirstLook>,
) -> Result<Source> {
    let (settings, lists) = match auther {
        config::Auther::Process(settings) => {
            return Ok(Source::Outside(Arc::new(RemoteAuther::new(name, settings)?)));
        }
        config::Auther::Listed { settings, lists } => (settings, lists),
    };
    let auther = Arc::new(Auther::new(settings)?);
    shutdown.tasks.spawn(Arc::clone(&auther).follow(shutdown.stop.clone()));
    for list in lists {
        let following = Arc::clone(&auther);
        let apply = move |place, listed: &Listed| following.apply(place, listed);
        looks.push(source::follow(list.clone(), format!("auther {name:?}"), shutdown, apply)?);
    }
    Ok(Source::Listed(auther))
}

/// Reads the file, if there is one, and says what is wrong with it.
pub(super) fn check(auther: &config::Auther) -> Result<()> {
    match auther {
        config::Auther::Process(_) => Ok(()),
        config::Auther::Listed { settings, .. } => Ok(Auther::new(settings).map(drop)?),
    }
}
