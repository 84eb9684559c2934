"""The pytest plugin: fixtures, markers and ini options. README.md describes them."""

from __future__ import annotations

import inspect
import shlex
from typing import Any, Callable, Dict, Generator, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import pytest

from ._client import Client
from ._errors import SandboxError
from ._sandbox import Sandbox, start
from ._snapshot import Paths, Prepare, StrPath, paths

MARKERS = (
    'migrations(*directories, tool=None): run the migrations in directories; "None" drops those declared farther out',
    "prepare(command, depends_on, env=None): run a program once, again when a file of depends_on has changed",
    "seed(*files): load files of SQL, rows (.csv) or a dump; None drops those declared farther out",
    "engine(name='postgres', *, version=None, settings=None, **more): the server; more: further arguments of start",
    "keep(policy='on_failure'): keep the data for `sandboxed-db open`: 'never', 'on_failure' or 'always'",
)

INI = (
    ("engine", "string", "the database server (default: postgres)"),
    ("version", "string", "the version of the server, such as 16 (default: the newest found)"),
    ("image", "string", "the image whose server runs, such as docker://postgres:17"),
    ("locked", "bool", "refuse an image whose name sandboxed-db.lock does not record"),
    ("packages", "linelist", "packages of the distribution on top of the server, one a line"),
    ("settings", "linelist", "settings of the server, name=value, one a line"),
    ("initdb_args", "args", "arguments for initdb"),
    ("migrations", "linelist", "directories of migrations, one a line"),
    ("tool", "string", "the migration tool, if the names of files do not show it"),
    ("prepare", "linelist", "commands that prepare the database, one a line"),
    ("depends_on", "linelist", "files and directories whose change runs these commands again"),
    ("seed", "linelist", "files of SQL or rows to load, one a line"),
    ("keep", "string", "keep data for `sandboxed-db open`: never (default), on_failure or always"),
    ("tcp", "bool", "let the server listen on a port of 127.0.0.1, too"),
    ("database", "string", "the name of the database (default: postgres)"),
    ("start_timeout", "string", "the time in which the server must be ready (default: 30s)"),
    ("build_timeout", "string", "the time in which a step must end (default: 30m)"),
    ("disk", "string", "the size that the server may write (default: 1GiB)"),
    ("memory", "string", "the memory of the server's processes (default: 4GiB)"),
    ("pids", "string", "the number of the server's processes (default: 512, or as max_connections needs)"),
    ("tls", "bool", "encrypt the connections of that port"),
    ("program", "string", "the program sandboxed-db (default: the one of the package)"),
)

#: The options that are arguments of `start` as they are.
_PLAIN = ("database", "start_timeout", "build_timeout", "disk", "memory", "keep")

#: Why a test failed, for the end of its servers.
_failure = pytest.StashKey[str]()
#: The reports of its servers, for the report of the test.
_reports = pytest.StashKey[List[str]]()
#: The servers of a test.
_running = pytest.StashKey[List[Sandbox]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, kind, text in INI:
        default: Any = {"string": "", "bool": False}.get(kind, [])
        parser.addini(f"sandboxed_db_{name}", text, type=kind, default=default)  # type: ignore[arg-type]


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    report: pytest.TestReport = (yield).get_result()
    if report.when == "teardown":
        # pytest shows sections with this word below the failure of the test.
        report.sections += [("sandboxed-db, seen at teardown", text) for text in item.stash.get(_reports, [])]
    elif report.failed and call.excinfo is not None:
        item.stash[_failure] = call.excinfo.exconly(tryshort=True)
        if report.when == "setup":
            # pytest shows no section of the teardown here.
            report.sections += [("sandboxed-db, log of the server", log) for log in _logs(item)]


def _logs(item: pytest.Item) -> Iterator[str]:
    for sandbox in item.stash.get(_running, []):
        try:
            log = sandbox.log()
        except SandboxError as error:
            log = str(error)
        if log.strip():
            yield log


class SandboxFactory:
    """Starts servers that end with the scope of their fixture."""

    def __init__(self, client: Client, description: Mapping[str, Any], test: str) -> None:
        self._client = client
        self._description = description
        self._test = test
        #: The servers in the order of their start.
        self.running: List[Sandbox] = []

    def __call__(self, **changes: Any) -> Sandbox:
        """Starts a server as the ini options and markers say, except for what is given: arguments of
        `sandboxed_db.start`."""
        __tracebackhide__ = True
        unknown = changes.keys() - _NAMES
        if unknown:
            raise SandboxError(
                f"start a server: the argument `{min(unknown)}` is unknown",
                hint=f"the choices are {', '.join(sorted(_NAMES))}",
            )
        if "migrations" in changes:
            # A tool belongs to its migrations.
            changes.setdefault("tool", None)
        sandbox = start(**{**self._description, **changes}, test=self._test, client=self._client)
        self.running.append(sandbox)
        return sandbox

    def stop(self, failure: Optional[str]) -> List[str]:
        """Ends all servers. Returns their reports if the test failed."""
        reports: List[str] = []
        errors: List[SandboxError] = []
        for sandbox in reversed(self.running):
            try:
                stopped = sandbox.stop(failed=failure is not None, message=failure)
            except SandboxError as error:
                errors.append(error)
                continue
            text = stopped.report.rstrip("\n")
            if text:
                reports.insert(0, text)
        # A failed test has its own message.
        if errors and failure is None:
            raise _failed(errors[0])
        return reports + [str(error) for error in errors[:1]]


#: The arguments of `start`, except for those that the fixture knows.
_NAMES = set(inspect.signature(start).parameters) - {"client", "test"}


def _failed(error: SandboxError) -> BaseException:
    """Returns the failure of a test that shows the error alone."""
    return pytest.fail.Exception(str(error), pytrace=False)


@pytest.fixture(scope="session")
def _sandboxed_db_client(pytestconfig: pytest.Config) -> Iterator[Client]:
    try:
        client = Client(pytestconfig.getini("sandboxed_db_program") or None)
    except SandboxError as error:
        raise _failed(error) from None
    yield client
    client.end()


@pytest.fixture
def sandboxed_db_factory(request: pytest.FixtureRequest, _sandboxed_db_client: Client) -> Iterator[SandboxFactory]:
    """A function that starts further servers, which end with the test."""
    item = request.node
    try:
        description = _with_markers(_ini(request.config), item)
    except SandboxError as error:
        raise _failed(error) from None
    factory = SandboxFactory(_sandboxed_db_client, description, item.nodeid)
    item.stash[_running] = factory.running
    yield factory
    item.stash[_reports] = factory.stop(item.stash.get(_failure, None))


@pytest.fixture(scope="session")
def sandboxed_db_session_factory(
    request: pytest.FixtureRequest, _sandboxed_db_client: Client
) -> Iterator[SandboxFactory]:
    """A function that starts servers as the ini options say, which end with the run: for tests that share one."""
    try:
        description = _ini(request.config)
    except SandboxError as error:
        raise _failed(error) from None
    factory = SandboxFactory(_sandboxed_db_client, description, "session")
    yield factory
    factory.stop(None)


@pytest.fixture
def sandboxed_db(sandboxed_db_factory: SandboxFactory) -> Sandbox:
    """The test's own server: a `sandboxed_db.Sandbox`, with `url`, `env` and `log()`."""
    try:
        return sandboxed_db_factory()
    except SandboxError as error:
        raise _failed(error) from None


@pytest.fixture
def sandboxed_db_url(sandboxed_db: Sandbox) -> str:
    """The address of the test's own server."""
    return sandboxed_db.url


@pytest.fixture
def sandboxed_db_django(request: pytest.FixtureRequest, sandboxed_db: Sandbox) -> Iterator[Sandbox]:
    """The test's own server, with Django's default connection on it."""
    from contextlib import ExitStack

    from .django import connected

    with ExitStack() as stack:
        if request.config.pluginmanager.hasplugin("django"):
            stack.enter_context(request.getfixturevalue("django_db_blocker").unblock())
        yield stack.enter_context(connected(sandboxed_db))


def _ini(config: pytest.Config) -> Dict[str, Any]:
    """Returns the description that the ini options are, as arguments of `start`."""
    ini = {name: config.getini(f"sandboxed_db_{name}") for name, _, _ in INI}
    settings = [line.partition("=") for line in ini["settings"]]
    for name, equals, _ in settings:
        if not equals:
            raise SandboxError(f"read `sandboxed_db_settings`: expected name=value, found {name!r}")
    if ini["prepare"] and not ini["depends_on"]:
        raise SandboxError(
            "read `sandboxed_db_prepare`: nothing says when to run it again",
            hint="list the files and directories that it reads in `sandboxed_db_depends_on`",
        )
    if ini["pids"] and not ini["pids"].isdecimal():
        raise SandboxError(f"read `sandboxed_db_pids`: expected a number, found {ini['pids']!r}")
    return {
        "engine": ini["engine"] or "postgres",
        "version": ini["version"] or None,
        "image": ini["image"] or None,
        "locked": ini["locked"],
        "settings": {name.strip(): value.strip() for name, _, value in settings},
        "packages": tuple(ini["packages"]),
        "initdb_args": ini["initdb_args"],
        "migrations": tuple(ini["migrations"]),
        "tool": ini["tool"] or None,
        "prepare": tuple(Prepare(command, ini["depends_on"]) for command in ini["prepare"]),
        "seed": tuple(ini["seed"]),
        **{name: ini[name] or None for name in _PLAIN},
        "pids": int(ini["pids"]) if ini["pids"] else None,
        "tcp": ini["tcp"],
        "tls": ini["tls"],
        "directory": config.inipath.parent if config.inipath else config.rootpath,
    }


def _with_markers(description: Dict[str, Any], item: pytest.Item) -> Dict[str, Any]:
    """Adds the markers of an item: steps after those declared farther out, other values in place of them."""
    # From the session to the test, each node's in the order in which pytest keeps them.
    marks: List[pytest.Mark] = []
    for node in item.listchain():
        marks += node.own_markers
    for mark in marks:
        apply = _APPLY.get(mark.name)
        if apply is None:
            continue
        try:
            description = {**description, **apply(description, *mark.args, **mark.kwargs)}
        except TypeError as error:
            cause = str(error).replace(f"{apply.__name__}()", "").strip()
            form = next(text for text in MARKERS if text.startswith(f"{mark.name}("))
            raise SandboxError(
                f"read the marker `{mark.name}` of {item.nodeid}: {cause}",
                hint=f"its form is {form.partition(':')[0]}",
            ) from None
    return description


def _migrations(
    before: Dict[str, Any], *directories: Optional[StrPath], tool: Optional[str] = None
) -> Dict[str, Any]:
    if directories == (None,):
        return {"migrations": (), "tool": None}
    added = _paths(directories)
    if before["migrations"] and tool != before["tool"]:
        raise SandboxError(
            f"read the marker `migrations`: it says tool={tool!r}, and the migrations before it {before['tool']!r}",
            hint="say the same tool, or drop the migrations before it by migrations(None)",
        )
    return {"migrations": (*before["migrations"], *added), "tool": tool}


def _prepare(
    before: Dict[str, Any],
    command: Optional[Union[str, Sequence[str]]],
    depends_on: Optional[Paths] = None,
    env: Optional[Mapping[str, str]] = None,
) -> Dict[str, Any]:
    if command is None:
        return {"prepare": ()}
    if depends_on is None:
        text = command if isinstance(command, str) else shlex.join(command)
        raise SandboxError(
            f"read the marker `prepare` of {text!r}: nothing says when to run it again",
            hint="list the files and directories that it reads: depends_on=[…]",
        )
    return {"prepare": (*before["prepare"], Prepare(command, depends_on, env or {}))}


def _seed(before: Dict[str, Any], *files: Optional[StrPath]) -> Dict[str, Any]:
    return {"seed": () if files == (None,) else (*before["seed"], *_paths(files))}


def _paths(given: Tuple[Optional[StrPath], ...]) -> Tuple[str, ...]:
    if not given or None in given:
        raise TypeError("expected paths")
    return paths([path for path in given if path is not None])


def _engine(
    before: Dict[str, Any],
    name: str = "postgres",
    *,
    settings: Optional[Mapping[str, str]] = None,
    **more: Any,
) -> Dict[str, Any]:
    unknown = more.keys() - (_NAMES - {"migrations", "tool", "prepare", "seed", "directory", "keep"})
    if unknown:
        raise TypeError(f"the argument `{min(unknown)}` is unknown")
    return {"engine": name, "settings": {**before["settings"], **(settings or {})}, **more}


def _keep(before: Dict[str, Any], policy: str = "on_failure") -> Dict[str, Any]:
    return {"keep": policy}


#: From the name of a marker to the function that adds it.
_APPLY: Dict[str, Callable[..., Dict[str, Any]]] = {
    "migrations": _migrations,
    "prepare": _prepare,
    "seed": _seed,
    "engine": _engine,
    "keep": _keep,
}
