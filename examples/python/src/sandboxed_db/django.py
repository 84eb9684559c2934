"""Django's connections on a sandbox."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator

from django.db import connections

from ._sandbox import Sandbox


@contextmanager
def connected(sandbox: Sandbox, alias: str = "default") -> Iterator[Sandbox]:
    """Points a connection of Django at a sandbox, for all threads, and back at the end."""
    connection = connections[alias]
    env = sandbox.env
    # All threads' connections share this object.
    settings = connection.settings_dict
    before = dict(settings)
    _close(connection)
    settings.update(
        NAME=env["PGDATABASE"],
        HOST=env["PGHOST"],
        PORT=env.get("PGPORT", ""),
        USER=env["PGUSER"],
        PASSWORD=env.get("PGPASSWORD", ""),
    )
    try:
        yield sandbox
    finally:
        _close(connection)
        settings.clear()
        settings.update(before)


def _close(connection: Any) -> None:
    connection.close()
    # The pool of Django 5.1 belongs to the address.
    close_pool = getattr(connection, "close_pool", None)
    if close_pool is not None:
        close_pool()
