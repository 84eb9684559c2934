"""The description of a database: an engine and steps, as requests carry it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ._errors import SandboxError

StrPath = Union[str, "os.PathLike[str]"]
#: One or several paths.
Paths = Union[StrPath, Sequence[StrPath]]


def paths(given: Paths) -> Tuple[str, ...]:
    """Returns paths as text."""
    if isinstance(given, (str, os.PathLike)):
        return (os.fspath(given),)
    return tuple(os.fspath(path) for path in given)


@dataclass(frozen=True)
class Prepare:
    """A program that prepares the database. It runs once; the result is cached as a layer.

    It finds the server by `DATABASE_URL`, `PGHOST` and the like. It runs again when a name or byte in one of the
    files and directories of `depends_on` changes, or a step before it.

    `command` is a list of the program and its arguments, or text for the shell.
    """

    command: Union[str, Sequence[str]]
    depends_on: Paths
    env: Mapping[str, str] = field(default_factory=dict)

    def step(self) -> Dict[str, Any]:
        shell = isinstance(self.command, str)
        command: List[str] = ["sh", "-c", str(self.command)] if shell else list(self.command)
        step: Dict[str, Any] = {"prepare": command, "depends_on": list(paths(self.depends_on))}
        if self.env:
            step["env"] = dict(self.env)
        return step


def steps(
    migrations: Paths, tool: Optional[str], prepare: Union[Prepare, Sequence[Prepare]], seed: Paths
) -> List[Dict[str, Any]]:
    """Returns the steps in the order in which they run: migrations, programs, seeds."""
    if isinstance(prepare, Prepare):
        prepare = [prepare]
    for step in prepare:
        if not isinstance(step, Prepare):
            raise SandboxError(
                f"read `prepare`: {step!r} does not say on which files it depends",
                hint='write Prepare("alembic upgrade head", depends_on=["alembic"])',
            )
    directories = paths(migrations)
    if tool is not None and not directories:
        raise SandboxError(f"read `tool`: {tool!r} has no migrations", hint="name their directory by `migrations`")
    key = "migrations" if tool is None else "migrations_of"
    found: List[Dict[str, Any]] = [{key: path if tool is None else [tool, path]} for path in directories]
    found += [step.step() for step in prepare]
    found += [{"seed": path} for path in paths(seed)]
    return found
