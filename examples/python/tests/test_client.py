"""The client: programs that do not follow the protocol, forks, and the end of the tests' process."""

import inspect
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import sysconfig

import pytest

import sandboxed_db
from sandboxed_db import SandboxError, _client, _program

GREETING = json.dumps({"serve": 1, "version": "0.1.0"})


@pytest.fixture
def program(tmp_path):
    """Writes a program that stands for `sandboxed-db`: a shell script."""

    def program(script):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return program


@pytest.mark.parametrize(
    "script, expected",
    [
        ("exit 3", "it ended with exit code 3"),
        ("echo '{\"serve\": 2}'; exec cat", "it speaks version 2 of the protocol"),
        ("echo starting; exec cat", "'starting' is none"),
        (f"echo '{GREETING}'; read line; exit 4", "it ended with exit code 4"),
        (f"echo '{GREETING}'; read line; echo '[]'; exec cat", "'[]' is none"),
        (f"echo '{GREETING}'; read line; echo '{{\"id\": 9, \"result\": {{}}}}'; exec cat", "is none"),
    ],
)
def test_a_program_of_another_protocol_is_an_error(program, script, expected):
    with pytest.raises(SandboxError, match=expected.replace("[", r"\[")):
        client = _client.Client(program(script))
        try:
            client.request("start", {})
        finally:
            client.end()


#: Each argument of `start`, a value, and what a request says for it: of the snapshot, and beside it.
ARGUMENTS = [
    ("engine", "redis", {"engine": "redis"}, {}),
    ("version", "16", {"version": "16"}, {}),
    ("image", "oci:images/db", {"image": "oci:images/db"}, {}),
    ("locked", True, {"locked": True}, {}),
    ("packages", ["postgresql-16-cron"], {"packages": ["postgresql-16-cron"]}, {}),
    ("settings", {"jit": "off"}, {"settings": {"jit": "off"}}, {}),
    ("initdb_args", ["--locale=C"], {"initdb_args": ["--locale=C"]}, {}),
    ("migrations", "m", {"steps": [{"migrations": "m"}]}, {}),
    ("tool", "sqlx", {"steps": [{"migrations_of": ["sqlx", "m"]}]}, {}),
    ("prepare", sandboxed_db.Prepare("x", "y"), {"steps": [{"prepare": ["sh", "-c", "x"], "depends_on": ["y"]}]}, {}),
    ("seed", ["a.sql", "b.csv"], {"steps": [{"seed": "a.sql"}, {"seed": "b.csv"}]}, {}),
    ("directory", "/", {}, {"directory": "/"}),
    ("test", "t", {}, {"test": "t"}),
    ("tcp", True, {}, {"tcp": True}),
    ("tls", True, {"tls": True}, {}),
    ("keep", "always", {}, {"keep": "always"}),
    ("database", "shop", {"database": "shop"}, {}),
    ("start_timeout", "9s", {"start_timeout": "9s"}, {}),
    ("build_timeout", "9m", {"build_timeout": "9m"}, {}),
    ("disk", "2GiB", {"disk": "2GiB"}, {}),
    ("memory", "3GiB", {"memory": "3GiB"}, {}),
    ("pids", 99, {"pids": 99}, {}),
]


class Recorder:
    """A client that keeps the request."""

    def request(self, method, params):
        self.params = params
        return {"sandbox": 1, "url": "postgresql:///postgres", "env": {}}


@pytest.mark.parametrize("name, value, snapshot, rest", ARGUMENTS, ids=lambda value: value if isinstance(value, str) else "")
def test_an_argument_reaches_the_request(name, value, snapshot, rest):
    client = Recorder()
    needed = {"migrations": "m"} if name == "tool" else {}
    sandboxed_db.start(**{**needed, name: value}, client=client)
    expected = {"snapshot": {"engine": "postgres", "steps": [], **snapshot}, "directory": os.getcwd(), **rest}
    assert client.params == expected


def test_the_table_above_has_all_arguments():
    assert [name for name, *_ in ARGUMENTS] + ["client"] == list(inspect.signature(sandboxed_db.start).parameters)


def test_an_engine_is_a_name_or_a_file(tmp_path):
    with sandboxed_db.start(engine="redis") as cache:
        assert cache.env["REDIS_URL"] == cache.url
    (tmp_path / "broken.toml").write_text('name = "x"\nprgram = "x"\n')
    with pytest.raises(SandboxError, match="unknown field `prgram`") as error:
        sandboxed_db.start(engine="broken.toml", directory=tmp_path)
    assert (error.value.kind, error.value.line) == ("invalid-config", 2)


def test_a_late_answer_is_an_error(program):
    client = _client.Client(program(f"echo '{GREETING}'; exec cat >/dev/null"))
    with pytest.raises(SandboxError, match="did not answer"):
        client.request("log", {"sandbox": 1}, 0.1)
    client.end()


def test_an_error_shows_message_place_hint_and_log(program):
    error = {"kind": "invalid-config", "message": "could not run it", "hint": "try", "file": "a.sql", "line": 3, "log": "x"}
    answer = json.dumps({"id": 1, "error": error})
    client = _client.Client(program(f"echo '{GREETING}'; read line; echo '{answer}'; exec cat"))
    with pytest.raises(SandboxError) as caught:
        client.request("start", {})
    client.end()
    assert str(caught.value) == "could not run it\na.sql:3\n  hint: try\n  server log, its end:\n  | x"
    assert caught.value.kind == "invalid-config"


def test_a_request_after_the_end_is_an_error():
    client = _client.Client()
    client.end()
    with pytest.raises(SandboxError):
        client.request("start", {})


@pytest.mark.parametrize("platform, words", [("darwin", "macOS"), ("win32", "Windows"), ("freebsd14", "freebsd14")])
def test_other_platforms_are_refused(platform, words):
    with pytest.raises(SandboxError, match=f"needs Linux, and this is {words}"):
        _program.require_linux(platform)


def test_a_missing_program_names_the_remedy(monkeypatch):
    monkeypatch.setattr(_program, "_carried", lambda: None)
    monkeypatch.setenv("PATH", "/absent")
    with pytest.raises(SandboxError, match="cargo install"):
        _program.find()


def test_the_program_of_the_package_is_used():
    assert _program.find() == os.path.join(sysconfig.get_path("scripts"), "sandboxed-db")


def test_a_block_ends_its_server():
    with sandboxed_db.start() as db:
        inside = init(db.url)
        assert db.timings["layer"] in ("hit", "miss")
        assert db.url_for("postgresql+psycopg").startswith("postgresql+psycopg:///postgres?host=")
    assert ended(inside)
    assert db.stop().kept is None


def test_a_forked_child_starts_its_own_program():
    with sandboxed_db.start() as db:
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=lambda: queue.put(sandboxed_db.start().url))
        child.start()
        other = queue.get()
        child.join(30)
        assert child.exitcode == 0
        assert other != db.url
        assert "ready" in db.log()


def test_nothing_is_left_after_a_kill_of_pytest(tmp_path):
    # The child of fork(2) outlives pytest and must not keep the program alive.
    tmp_path.joinpath("test_it.py").write_text(
        "import multiprocessing, time\n"
        "def test_it(sandboxed_db, _sandboxed_db_client):\n"
        "    child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,))\n"
        "    child.start()\n"
        "    print(_sandboxed_db_client._process.pid, child.pid, sandboxed_db.url, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-p", "no:django", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tests:
        line = next(line for line in tests.stdout if "postgresql:" in line)
        serve, child, url = line.lstrip(".").split()
        handles = [os.pidfd_open(int(serve)), init(url)]
        tests.send_signal(signal.SIGKILL)
        tests.stdout.close()
        try:
            assert all(ended(handle) for handle in handles)
        finally:
            os.kill(int(child), signal.SIGKILL)


def init(url):
    """Returns a descriptor of the first process of a server."""
    return os.pidfd_open(int(url.partition("/proc/")[2].partition("/")[0]))


def ended(handle):
    """Waits for the end of a process."""
    return bool(select.select([handle], [], [], 30)[0])
