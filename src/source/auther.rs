//! Users that one of GOST's plugins knows.

use super::plugin::{Credentials, Plugin, Settings, Trouble};
use crate::auth::{Claim, Known, Outside};
use crate::channel::tls::TlsError;

/// Asks the plugin about each user who comes. One that fails lets nobody in.
#[derive(Debug)]
pub(crate) struct RemoteAuther {
    plugin: Plugin,
    trouble: Trouble,
}

impl RemoteAuther {
    /// Reads the files that the settings name.
    pub(crate) fn new(name: &str, settings: &Settings) -> Result<Self, TlsError> {
        let trouble = Trouble::new(format!("auther {name:?}"), settings.at.to_string());
        Ok(Self { plugin: Plugin::new(settings)?, trouble })
    }
}

impl Outside for RemoteAuther {
    fn knows<'a>(&'a self, claim: Claim<'a>) -> Known<'a> {
        Box::pin(async move {
            let Claim { username, password, service, client } = claim;
            // What is no text cannot be asked for.
            let (Ok(username), Ok(password)) = (str::from_utf8(username), str::from_utf8(password)) else {
                return false;
            };
            let client = client.to_string();
            let answer =
                self.plugin.knows(Credentials { service, username, password, client: &client }).await;
            self.trouble.tell(answer.as_ref().err());
            answer.unwrap_or(false)
        })
    }
}
