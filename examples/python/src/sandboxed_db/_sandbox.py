"""A running server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Dict, Mapping, Optional, Sequence, Type, Union

from . import _client
from ._client import Client
from ._errors import SandboxError
from ._snapshot import Paths, Prepare, StrPath, steps


@dataclass(frozen=True)
class Kept:
    """Data that was kept after a test."""

    name: str
    #: The command that starts a server on it.
    open: str
    #: The command that shows what the test changed.
    diff: str


@dataclass(frozen=True)
class Stopped:
    """The end of a server."""

    #: For a failed test: the times of the start and the end of the server's log. Else empty.
    report: str
    kept: Optional[Kept]


class Sandbox:
    """A running server with a separate database. `with` and `stop` end it, as does the end of the process."""

    def __init__(self, client: Client, result: Mapping[str, Any]) -> None:
        self._client = client
        self._number: int = result["sandbox"]
        self._stopped: Optional[Stopped] = None
        #: The address for drivers: `postgresql:///postgres?host=…&user=postgres`.
        self.url: str = result["url"]
        #: `DATABASE_URL`, `PGHOST`, `PGUSER` and the like, for programs.
        self.env: Dict[str, str] = dict(result["env"])
        #: The address by TCP, with a password, if `tcp` was set.
        self.tcp_url: Optional[str] = result.get("tcp_url")
        #: Milliseconds of the start by its parts, and whether the layer was cached.
        self.timings: Dict[str, Any] = dict(result.get("timings") or {})

    def url_for(self, scheme: str) -> str:
        """Returns the URL with another scheme, such as `postgresql+psycopg` for SQLAlchemy."""
        return f"{scheme}:{self.url.partition(':')[2]}"

    def log(self) -> str:
        """Returns the server's log."""
        return str(self._client.request("log", {"sandbox": self._number}, _client.PROMPT)["log"])

    def stop(self, *, failed: bool = False, message: Optional[str] = None) -> Stopped:
        """Ends the server. `failed` asks for a report, and for the data if `keep` says so. Later calls do nothing."""
        __tracebackhide__ = True
        if self._stopped is None:
            params: Dict[str, Any] = {"sandbox": self._number, "failed": failed}
            if message is not None:
                params["message"] = message
            result = self._client.request("stop", params)
            kept = result.get("kept")
            found = None if kept is None else Kept(kept["name"], kept["open"], kept["diff"])
            self._stopped = Stopped(result.get("report") or "", found)
        return self._stopped

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop(failed=error is not None, message=None if error is None else repr(error))

    def __repr__(self) -> str:
        return f"<Sandbox {self.url}>"


def start(
    *,
    engine: str = "postgres",
    version: Optional[str] = None,
    image: Optional[str] = None,
    locked: bool = False,
    packages: Sequence[str] = (),
    settings: Optional[Mapping[str, str]] = None,
    initdb_args: Sequence[str] = (),
    migrations: Paths = (),
    tool: Optional[str] = None,
    prepare: Union[Prepare, Sequence[Prepare]] = (),
    seed: Paths = (),
    directory: Optional[StrPath] = None,
    test: Optional[str] = None,
    tcp: bool = False,
    tls: bool = False,
    keep: Optional[str] = None,
    database: Optional[str] = None,
    start_timeout: Optional[str] = None,
    build_timeout: Optional[str] = None,
    disk: Optional[str] = None,
    memory: Optional[str] = None,
    pids: Optional[int] = None,
    client: Optional[Client] = None,
) -> Sandbox:
    """Starts a server on a pristine copy of a prepared database.

    The database is prepared once by migrations, programs and seeds, in this order, and cached. Relative paths start
    at `directory` (default: the working directory).

    - `engine`: the server: "postgres", "mariadb", "mysql", "redis", "sqlite", or a file of TOML that describes one.
    - `version`: its version, such as "16" (default: the newest found).
    - `image`: run the server of an image, such as "docker://postgres:17"; `locked` refuses one whose name
      `sandboxed-db.lock` does not record.
    - `packages`: of the distribution, on top of the server, such as "postgresql-15-postgis-3".
    - `settings`: as in the server's configuration file.
    - `migrations`: directories of SQL files; `tool` names the migration tool if file names do not show it.
    - `seed`: files of SQL, rows (.csv) or a dump of pg_dump.
    - `test`: the test's name, for reports.
    - `tcp`: also listen on a port of 127.0.0.1, with a password (`tcp_url`); `tls` encrypts its connections.
    - `keep`: keep the data for `sandboxed-db open`: "never" (default), "on_failure" or "always".
    - `database`: its name (default: postgres).
    - `start_timeout`, `build_timeout`: times, such as "30s"; `disk`, `memory`: sizes, such as "1GiB"; `pids`: the
      number of processes.

    Raises `SandboxError`.
    """
    __tracebackhide__ = True
    optional = {
        "version": version,
        "image": image,
        "locked": locked or None,
        "settings": dict(settings) if settings else None,
        "database": database,
        "tls": tls or None,
        "start_timeout": start_timeout,
        "build_timeout": build_timeout,
        "disk": disk,
        "memory": memory,
        "pids": pids,
    }
    snapshot: Dict[str, Any] = {"engine": engine}
    snapshot.update((name, value) for name, value in optional.items() if value is not None)
    for name, values in {"packages": packages, "initdb_args": initdb_args}.items():
        if isinstance(values, str):
            raise SandboxError(f"read `{name}`: expected a list, found {values!r}")
        if values:
            snapshot[name] = list(values)
    snapshot["steps"] = steps(migrations, tool, prepare, seed)
    params: Dict[str, Any] = {"snapshot": snapshot, "directory": os.path.abspath(directory or ".")}
    if test is not None:
        params["test"] = test
    if tcp:
        params["tcp"] = True
    if keep is not None:
        params["keep"] = keep
    client = client or _client.default()
    return Sandbox(client, client.request("start", params))
