"""Maintenance: in a time window, visitors of some hosts are told to come back later. For an ingress.

Everything that is imported or computed at the top of this file is done when the component is built, not in the proxy.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.ingress import Answer, Verdict_Pass, Verdict_Refuse
from wit_world.imports import host
from wit_world.imports.types import Dependency, Refusal, Request, Reuse


@dataclass
class Window:
    hosts: list[str]
    start: int  # milliseconds since 1970, as host.now_ms() tells them
    end: int
    reason: str


windows: list[Window] = []


class Lifecycle(exports.Lifecycle):
    def configure(self, config: str) -> None:
        global windows
        # JSON is YAML too, and Python reads it without a package; lines that begin with # are comments.
        lines = ("" if line.lstrip().startswith("#") else line for line in config.splitlines())
        try:
            windows = [read(window) for window in json.loads("\n".join(lines) or "[]")]
        except (ValueError, KeyError, TypeError) as error:
            # Only an Err reaches the host with its text; any other exception is a trap.
            raise Err(f"{type(error).__name__}: {error}")


def read(window: dict) -> Window:
    start, end = milliseconds(window["from"]), milliseconds(window["until"])
    if start >= end:
        raise ValueError(f"{window['from']} is not before {window['until']}")
    return Window(window["hosts"], start, end, window.get("reason", "down for maintenance"))


def milliseconds(text: str) -> int:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone; write it with Z or +02:00")
    return int(time.timestamp() * 1000)


class Ingress(exports.Ingress):
    def resolve(self, req: Request) -> Answer:
        # The clock is the host's; Python's own stands still in here.
        now = host.now_ms()
        verdict = Verdict_Pass()
        changes = []
        for window in windows:
            if not any(fnmatchcase(req.hostname, pattern) for pattern in window.hosts):
                continue
            changes += [at for at in (window.start, window.end) if at > now]
            if window.start <= now < window.end and isinstance(verdict, Verdict_Pass):
                verdict = Verdict_Refuse(Refusal(503, window.reason))
        return Answer(verdict, until(min(changes, default=None), now))


def until(change: int | None, now: int) -> Reuse:
    """The answer holds for this host until its next window opens or closes.

    Python takes several times as long as other guests to answer; with this it is asked once for each host, and the
    host's cache answers the rest.
    """
    day = 24 * 60 * 60 * 1000
    return Reuse(min(change - now, day) if change else day, Dependency(0))
