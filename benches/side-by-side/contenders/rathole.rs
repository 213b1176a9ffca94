//! rathole: a port at the server for each service; it does not look at what passes.

use super::{Channel, Contender, Routing, Tunnel, named, part, printed, write};
use crate::process::Part;
use anyhow::{Context, Result, ensure};
use std::path::Path;

pub(super) struct Rathole;

/// What its certificate is for.
const NAME: &str = "server.bench.test";
const PASSWORD: &str = "bench";

impl Contender for Rathole {
    fn name(&self) -> &'static str {
        "rathole"
    }

    fn version(&self) -> Result<String> {
        let text = printed(&named("RATHOLE")?, "--version")?;
        let line = text.lines().find_map(|line| line.strip_prefix("Build Version:"));
        Ok(format!("rathole {}", line.unwrap_or_default().trim()))
    }

    fn tunnel(&self, task: &Tunnel, dir: &Path) -> Result<Vec<Part>> {
        ensure!(task.routing == Routing::Rules, "routes by port, without plugins");
        ensure!(
            task.tunnels.len() > 1 || task.tunnels[0].len() == 1,
            "routes by port, without rules for hosts"
        );
        let [target] = task.targets[..] else { anyhow::bail!("takes one client for each service") };
        let (server_channel, client_channel) = match task.channel {
            Channel::Tcp => (String::new(), String::new()),
            Channel::Tls => tls(dir)?,
        };
        let mut server =
            format!("[server]\nbind_addr = '127.0.0.1:{}'\ndefault_token = 't'\n{server_channel}", task.port);
        let mut client = format!(
            "[client]\nremote_addr = '127.0.0.1:{}'\ndefault_token = 't'\n{client_channel}",
            task.reach
        );
        for (n, entry) in task.entries.iter().enumerate() {
            server += &format!("[server.services.s{n}]\nbind_addr = '127.0.0.1:{entry}'\n");
            client += &format!("[client.services.s{n}]\nlocal_addr = '127.0.0.1:{target}'\n");
        }
        let program = named("RATHOLE")?;
        let run = |role, name, text: &str| {
            let file = write(dir, name, text)?;
            let mut part = part(role, &program, &[file]);
            part.command.env("RUST_LOG", "error");
            anyhow::Ok(part)
        };
        Ok(vec![run("server", "server.toml", &server)?, run("client", "client.toml", &client)?])
    }

    fn entry(&self, task: &Tunnel, tunnel: usize) -> u16 {
        task.entries[tunnel]
    }
}

/// What makes the channel TLS, at the server and at the client. It wants its identity as PKCS #12.
fn tls(dir: &Path) -> Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let certificate = write(dir, "server.pem", &made.cert.pem())?;
    let key = write(dir, "server.key", &made.signing_key.serialize_pem())?;
    let identity = dir.join("server.pfx");
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["pkcs12", "-export", "-passout", &format!("pass:{PASSWORD}"), "-in"]).arg(&certificate);
    openssl.arg("-inkey").arg(&key).arg("-out").arg(&identity);
    let output = openssl.output().context("openssl, which makes rathole's identity")?;
    ensure!(output.status.success(), "openssl pkcs12: {}", String::from_utf8_lossy(&output.stderr).trim());
    let (identity, certificate) = (identity.display(), certificate.display());
    let server = format!(
        "[server.transport]\ntype = 'tls'\n[server.transport.tls]\npkcs12 = '{identity}'\npkcs12_password = '{PASSWORD}'\n"
    );
    let client = format!(
        "[client.transport]\ntype = 'tls'\n[client.transport.tls]\ntrusted_root = '{certificate}'\nhostname = '{NAME}'\n"
    );
    Ok((server, client))
}
