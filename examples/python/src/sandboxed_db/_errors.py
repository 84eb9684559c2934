"""The error of the package."""

from __future__ import annotations

from typing import Optional


class SandboxError(Exception):
    """An operation that failed. `str` is the whole report: message, place, hint and log."""

    def __init__(
        self,
        message: str,
        *,
        kind: str = "client",
        hint: Optional[str] = None,
        file: Optional[str] = None,
        line: Optional[int] = None,
        log: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        #: The failed operation, its object and the cause.
        self.message = message
        #: The kind of the failure, such as "not-installed"; "client" for an error of this package.
        self.kind = kind
        #: One sentence that says what to do.
        self.hint = hint
        #: The file of a migration or seed that failed, and its line.
        self.file = file
        self.line = line
        #: The end of the server's log.
        self.log = log

    def __str__(self) -> str:
        parts = [self.message]
        if self.file is not None and self.file not in self.message:
            parts.append(self.file if self.line is None else f"{self.file}:{self.line}")
        if self.hint is not None and self.hint not in self.message:
            parts.append(f"  hint: {self.hint}")
        if self.log:
            parts.append("  server log, its end:")
            parts += [f"  | {line}" for line in self.log.splitlines()]
        return "\n".join(parts)
