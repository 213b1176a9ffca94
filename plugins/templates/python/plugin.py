"""Hostname to tunnel, from lines `HOSTNAME: TUNNEL-ID`."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.ingress import Answer, Verdict_Pass, Verdict_Tunnel
from wit_world.imports.types import Dependency, Request, Reuse

tunnels: dict[str, str] = {}


class Lifecycle(exports.Lifecycle):
    def configure(self, config: str) -> None:
        tunnels.clear()
        for line in config.splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            host, colon, tunnel = line.partition(":")
            if not colon:
                # Only an Err reaches the proxy with its text; any other exception is a trap.
                raise Err(f"expected HOSTNAME: TUNNEL-ID, found {line}")
            tunnels[host.strip()] = tunnel.strip()


class Ingress(exports.Ingress):
    def resolve(self, req: Request) -> Answer:
        tunnel = tunnels.get(req.hostname)
        verdict = Verdict_Tunnel(tunnel) if tunnel else Verdict_Pass()
        # Nothing but the hostname counted: the proxy need not ask again for a minute.
        return Answer(verdict, Reuse(60_000, Dependency(0)))
