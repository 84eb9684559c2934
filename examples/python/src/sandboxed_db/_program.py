"""The program `sandboxed-db` that this package carries."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from typing import Dict, Optional

from ._errors import SandboxError

NAME = "sandboxed-db"


def find(given: Optional[str] = None) -> str:
    """Returns the path of the program: as given, else the one of this package, else that of PATH."""
    require_linux(sys.platform)
    if given:
        found = shutil.which(given)
        if found is None:
            raise SandboxError(
                f"find the program `{given}`: there is no such executable file",
                hint="correct the option `sandboxed_db_program`, or leave it out",
            )
        return found
    found = _carried() or shutil.which(NAME)
    if found is None:
        raise SandboxError(
            f"find the program `{NAME}`: neither this package nor a directory of PATH has it",
            hint="install a wheel of sandboxed-db for this machine, or `cargo install sandboxed-db --features cli`",
        )
    return found


def require_linux(platform: str) -> None:
    """Raises an error on a platform without the namespaces of Linux."""
    if platform.startswith("linux"):
        return
    name = {"darwin": "macOS", "win32": "Windows", "cygwin": "Windows"}.get(platform, platform)
    where = "in WSL 2" if name == "Windows" else "in a Linux virtual machine or container"
    raise SandboxError(
        f"start a database server: sandboxed-db needs Linux, and this is {name}",
        kind="host-unsupported",
        hint=f"run the tests {where}",
    )


def environment() -> Dict[str, str]:
    """Returns the environment of the program. The scripts of this Python come first in PATH, so that
    `prepare="alembic upgrade head"` finds the installed one, even in an environment that is not activated."""
    scripts = os.path.dirname(sys.executable)
    path = os.environ.get("PATH", os.defpath)
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{path}"}


def _carried() -> Optional[str]:
    """Returns the program that was installed with this package, wherever pip put it."""
    try:
        files = metadata.files(NAME) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == NAME:
            path = os.path.abspath(str(file.locate()))
            if os.access(path, os.X_OK):
                return path
    return None
