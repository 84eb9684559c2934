"""A `sandboxed-db serve` process and the requests to it: a JSON object a line, on pipes."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import threading
import weakref
from concurrent.futures import Future, TimeoutError
from typing import Any, BinaryIO, Dict, Mapping, Optional, cast

from . import _program
from ._errors import SandboxError

#: The version of the protocol.
PROTOCOL = 1

#: Seconds in which the program must answer its start and its end.
PROMPT = 30.0

#: Seconds in which it must answer a request. It has deadlines for each step of a build (30 minutes) and
#: each start, so this one ends the wait for a program that does not run.
PATIENT = 2 * 3600.0


class Client:
    """Starts the program. It ends with `end`, or with this process: the kernel closes the pipe."""

    def __init__(self, program: Optional[str] = None) -> None:
        path = _program.find(program)
        try:
            self._process = subprocess.Popen(
                [path, "serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_program.environment(),
                bufsize=0,
                # Ctrl-C is for the tests, whose fixtures still need their servers.
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError(f"start `{path} serve`: {error.strerror}") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input = self._process.stdin
        self._path = path
        # One for requests, one for the end of all.
        self._lock = threading.Lock()
        self._failing = threading.Lock()
        self._last = 0
        self._greeting: Future[Dict[str, Any]] = Future()
        self._pending: Dict[int, Future[Dict[str, Any]]] = {}
        self._ended: Optional[SandboxError] = None
        output = open(self._process.stdout.fileno(), "rb", closefd=False)
        self._reader = threading.Thread(target=self._read, args=(output,), name="sandboxed-db", daemon=True)
        self._reader.start()
        _clients.add(self)
        try:
            self._greet()
        except BaseException:
            self.end()
            raise

    def request(self, method: str, params: Mapping[str, Any], limit: float = PATIENT) -> Dict[str, Any]:
        """Sends a request and returns the result. Threads do not wait for each other's requests."""
        answer: Future[Dict[str, Any]] = Future()
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._last += 1
            self._pending[self._last] = answer
            self._send({"id": self._last, "method": method, "params": dict(params)})
        if self._ended is not None:
            # The program may have ended before the request was pending.
            self._fail(self._ended)
        return self._wait(answer, f"`{method}`", limit)

    def end(self) -> None:
        """Ends the program and its servers."""
        # Waits for the write of another thread, whose descriptor could otherwise get another meaning.
        if self._lock.acquire(timeout=PROMPT):
            self._input.close()
            self._lock.release()
        try:
            self._process.wait(PROMPT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not threading.current_thread():
            self._reader.join(PROMPT)
        _clients.discard(self)

    def abandon(self) -> None:
        """Closes the pipe of the parent in a forked child, which would otherwise keep the program alive."""
        self._input.close()

    def _greet(self) -> None:
        greeting = self._wait(self._greeting, "its start", PROMPT)
        if greeting.get("serve") != PROTOCOL:
            raise SandboxError(
                f"start `{self._path} serve`: it speaks version {greeting.get('serve')} of the protocol, "
                f"and this package version {PROTOCOL}",
                hint="install the same version of both",
            )

    def _wait(self, answer: Future[Dict[str, Any]], what: str, limit: float) -> Dict[str, Any]:
        try:
            return answer.result(limit)
        except TimeoutError:
            raise SandboxError(f"wait for {what}: `{self._path} serve` did not answer in {limit:.0f} s") from None

    def _send(self, request: Mapping[str, Any]) -> None:
        rest = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while rest:
                rest = rest[self._input.write(rest) :]
        except (BrokenPipeError, ValueError):
            # The program has ended, or `end` was called: the reader fails all requests.
            self._reader.join(PROMPT)
            self._fail(self._ended or SandboxError("send a request: the program was ended"))

    def _read(self, output: BinaryIO) -> None:
        """Delivers answers until the program ends."""
        greeted = False
        for line in output:
            try:
                message = cast(Dict[str, Any], json.loads(line))
                if not greeted:
                    greeted = True
                    self._greeting.set_result(message)
                else:
                    self._deliver(message)
            except (ValueError, KeyError, TypeError, AttributeError):
                text = line.decode(errors="replace").strip()
                self._fail(SandboxError(f"read the answer of `{self._path} serve`: {text!r} is none"))
        # The output may be closed before the end.
        try:
            cause = f"it ended with exit code {self._process.wait(PROMPT)}"
        except subprocess.TimeoutExpired:
            cause = "it closed its output"
        self._fail(
            SandboxError(
                f"talk to `{self._path} serve`: {cause}",
                hint="its messages are in the standard error of the tests (`pytest -s` shows it)",
            )
        )

    def _deliver(self, message: Dict[str, Any]) -> None:
        if message.get("id") is None:
            raise KeyError("id")
        answer = self._pending.pop(message["id"])
        if "error" in message:
            error = message["error"]
            answer.set_exception(
                SandboxError(
                    error["message"],
                    kind=error["kind"],
                    hint=error.get("hint"),
                    file=error.get("file"),
                    line=error.get("line"),
                    log=error.get("log"),
                )
            )
        else:
            answer.set_result(message["result"])

    def _fail(self, error: SandboxError) -> None:
        """Fails this and all later requests."""
        with self._failing:
            self._ended = self._ended or error
            for answer in [self._greeting, *list(self._pending.values())]:
                if not answer.done():
                    answer.set_exception(self._ended)


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()
_default: Optional[Client] = None
_default_lock = threading.Lock()


def default() -> Client:
    """Returns the client of this process, which is started by the first call."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Client()
        return _default


def _forget() -> None:
    """Leaves the programs of the parent to it, after fork(2)."""
    global _default, _default_lock
    _default, _default_lock = None, threading.Lock()
    for client in list(_clients):
        client.abandon()
    _clients.clear()


def _end_all() -> None:
    for client in list(_clients):
        client.end()


# Windows has no fork(2); there `Client` raises an error, and the package can be imported.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(_end_all)
