"""The plugin, by runs of pytest on real servers."""

import json
import re
import textwrap

import pytest
from sandboxed_db.pytest_plugin import INI

SCHEMA = "create table orders (id serial primary key, article text not null);"


@pytest.fixture
def run(pytester):
    """Runs pytest on a file of tests. Options are those of the ini file, without their prefix."""

    def run(tests, *arguments, **options):
        pytester.makefile(".sql", orders=SCHEMA, tea="insert into orders (article) values ('tea');")
        lines = [f"sandboxed_db_{name} = {value}" for name, value in options.items()]
        pytester.makefile(".ini", pytest="\n".join(["[pytest]", "addopts = -p no:django", *lines]))
        query = """
            import psycopg, pytest

            def query(url, text):
                with psycopg.connect(url, autocommit=True) as connection:
                    cursor = connection.execute(text)
                    return cursor.fetchall() if cursor.description else None
        """
        pytester.makepyfile(textwrap.dedent(query) + textwrap.dedent(tests))
        return pytester.runpytest_subprocess(*arguments)

    return run


def test_ini_options_describe_the_database(run):
    result = run(
        """
        @pytest.mark.parametrize("case", [1, 2])
        def test_it(sandboxed_db_url, case):
            assert query(sandboxed_db_url, "insert into orders (article) values ('x') returning id") == [(2,)]
            assert query(sandboxed_db_url, "show work_mem") == [("5MB",)]
        """,
        seed="\n    orders.sql\n    tea.sql",
        settings="work_mem = 5MB",
    )
    result.assert_outcomes(passed=2)


def test_markers_add_to_those_farther_out(run):
    result = run(
        """
        pytestmark = pytest.mark.seed("orders.sql")
        count = "select count(*) from orders"

        @pytest.mark.seed("tea.sql", "tea.sql")
        class TestTea:
            @pytest.mark.seed("tea.sql")
            def test_three(self, sandboxed_db_url):
                assert query(sandboxed_db_url, count) == [(3,)]

            @pytest.mark.engine(settings={"work_mem": "5MB"}, database="shop")
            def test_two(self, sandboxed_db):
                assert query(sandboxed_db.url, count) == [(2,)]
                assert query(sandboxed_db.url, "show work_mem") == [("5MB",)]
                assert sandboxed_db.env["PGDATABASE"] == "shop"

            @pytest.mark.seed(None)
            def test_none(self, sandboxed_db_url):
                assert query(sandboxed_db_url, "select to_regclass('orders')") == [(None,)]
        """
    )
    result.assert_outcomes(passed=3)


def test_migrations_follow_the_named_tool(run, pytester):
    pytester.mkdir("migrations").joinpath("1_orders.sql").write_text(SCHEMA)
    result = run(
        """
        @pytest.mark.migrations("migrations", tool="sqlx")
        def test_it(sandboxed_db_url):
            assert query(sandboxed_db_url, "select version from _sqlx_migrations") == [(1,)]
        """
    )
    result.assert_outcomes(passed=1)


def test_a_program_prepares_the_database_once(run, pytester):
    pytester.path.joinpath("input").write_text(str(pytester.path))
    tests = """
        @pytest.mark.prepare('psql -qf orders.sql && echo run >> runs', depends_on=["input"], env={"STAGE": "1"})
        @pytest.mark.parametrize("case", [1, 2])
        def test_it(sandboxed_db_url, case):
            assert query(sandboxed_db_url, "select count(*) from orders") == [(0,)]
    """
    for _ in range(2):
        run(tests).assert_outcomes(passed=2)
    runs = pytester.path.joinpath("runs")
    assert runs.read_text() == "run\n"
    pytester.path.joinpath("input").write_text("changed" + str(pytester.path))
    run(tests).assert_outcomes(passed=2)
    assert runs.read_text() == "run\nrun\n"


def test_scripts_of_the_environment_are_found(run, pytester):
    result = run(
        """
        import sys

        @pytest.mark.prepare(["python", "-c", "import sys; assert sys.prefix == sys.argv[1]", sys.prefix], depends_on=[])
        def test_it(sandboxed_db):
            pass
        """
    )
    result.assert_outcomes(passed=1)


def test_a_failed_test_shows_the_log(run):
    result = run(
        """
        @pytest.fixture
        def connection(sandboxed_db_url):
            with psycopg.connect(sandboxed_db_url) as connection:
                yield connection
                connection.rollback()

        def test_it(connection):
            connection.execute("select 1 / 0")
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*seen at teardown*", "*division by zero*"])


def test_a_failed_set_up_shows_the_log(run):
    result = run(
        """
        @pytest.fixture
        def rows(sandboxed_db_url):
            return query(sandboxed_db_url, "select 1 / 0")

        def test_it(rows):
            pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*log of the server*", "*division by zero*"])


def test_a_passed_test_shows_no_report(run):
    result = run("def test_it(sandboxed_db_url): assert query(sandboxed_db_url, 'select 1') == [(1,)]", "-rA")
    result.assert_outcomes(passed=1)
    assert "seen at teardown" not in result.stdout.str()


def test_data_of_a_failed_test_is_kept(run, monkeypatch):
    monkeypatch.delenv("SANDBOXED_DB_KEEP", raising=False)
    result = run(
        """
        @pytest.mark.keep("on_failure")
        @pytest.mark.seed("orders.sql")
        def test_it(sandboxed_db):
            assert False
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*sandboxed-db open *"])


@pytest.mark.parametrize(
    "marker, expected",
    [
        ('seed("absent.sql")', ["could not read*absent.sql*"]),
        ("seed()", ["read the marker `seed`*expected paths", "*its form is seed(?files)"]),
        ('prepare("alembic upgrade head")', ["read the marker `prepare`*", "*depends_on=*"]),
        ('prepare("exit 3", depends_on=[])', ["could not run*", "*exit status: 3*"]),
        ('migrations("m", tools="sqlx")', ["read the marker `migrations`*unexpected keyword*'tools'"]),
        ('engine("oracle")', ["*unknown engine `oracle`, expected*postgres*"]),
        ('engine(port=5)', ["*the argument `port` is unknown", "*its form is engine(*"]),
        ('engine(version="1.0")', ["*1.0*"]),
        ('keep("sometimes")', ["*unknown variant `sometimes`, expected*on_failure*"]),
    ],
)
def test_mistakes_are_named_without_a_traceback(run, marker, expected):
    result = run(f"@pytest.mark.{marker}\ndef test_it(sandboxed_db): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(expected)
    # A place in a source file is that of a frame.
    assert not re.search(r"\.py:\d", result.stdout.str())


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"prepare": "alembic upgrade head"}, ["read `sandboxed_db_prepare`*", "*`sandboxed_db_depends_on`"]),
        ({"settings": "work_mem"}, ["read `sandboxed_db_settings`: expected name=value*"]),
        ({"pids": "many"}, ["read `sandboxed_db_pids`: expected a number, found 'many'"]),
        ({"program": "/absent"}, ["find the program `/absent`*", "*`sandboxed_db_program`*"]),
        ({"program": "/bin/true"}, ["talk to `/bin/true serve`: it ended with exit code 0"]),
    ],
)
def test_wrong_ini_options_are_named(run, options, expected):
    result = run("def test_it(sandboxed_db): pass", **options)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(expected)


def test_an_error_of_the_factory_points_at_the_test(run):
    result = run("def test_it(sandboxed_db_factory):\n    sandboxed_db_factory(seed='absent.sql')")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">*sandboxed_db_factory(seed='absent.sql')", "E*absent.sql*"])
    assert "pytest_plugin.py" not in result.stdout.str()


def test_the_factory_refuses_an_unknown_argument(run):
    result = run("def test_it(sandboxed_db_factory):\n    sandboxed_db_factory(seeds='x.sql')")
    result.stdout.fnmatch_lines(["E*`seeds` is unknown", "E*the choices are*seed*"])


def test_servers_of_threads_start_side_by_side(run):
    result = run(
        """
        from concurrent.futures import ThreadPoolExecutor

        def test_it(sandboxed_db_factory):
            with ThreadPoolExecutor(4) as pool:
                urls = list(pool.map(lambda _: sandboxed_db_factory(seed="orders.sql").url, range(4)))
            assert len(set(urls)) == 4
            assert [query(url, "select count(*) from orders") for url in urls] == [[(0,)]] * 4
        """
    )
    result.assert_outcomes(passed=1)


def test_each_worker_of_xdist_has_its_servers(run):
    result = run(
        """
        @pytest.mark.parametrize("case", range(8))
        def test_it(sandboxed_db_url, case):
            assert query(sandboxed_db_url, "insert into orders (article) values ('x') returning id") == [(1,)]

        def test_fails(sandboxed_db_url):
            query(sandboxed_db_url, "select 1 / 0")
        """,
        "-n2",
        seed="orders.sql",
    )
    result.assert_outcomes(passed=8, failed=1)
    result.stdout.fnmatch_lines(["*seen at teardown*", "*division by zero*"])


def test_unittest_classes_use_the_fixtures(run):
    result = run(
        """
        import unittest

        @pytest.mark.seed("orders.sql")
        class OrdersTest(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def database(self, sandboxed_db_url):
                self.url = sandboxed_db_url

            def test_it(self):
                self.assertEqual(query(self.url, "select count(*) from orders"), [(0,)])
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("tls", ["true", "false"])
def test_a_server_listens_on_a_port_on_request(run, tls):
    result = run(
        f"""
        def test_it(sandboxed_db):
            assert "@127.0.0.1:" in sandboxed_db.tcp_url
            encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
            assert query(sandboxed_db.tcp_url, encrypted) == [({tls.title()},)]
        """,
        tcp="true",
        tls=tls,
    )
    result.assert_outcomes(passed=1)


#: Each ini option but `program`, and what a request says for all of them.
OPTIONS = {
    "engine": "mariadb",
    "version": "11",
    "image": "oci:images/db",
    "locked": "true",
    "packages": "\n    a\n    b",
    "settings": "\n    x = 1\n    y=2",
    "initdb_args": "--locale=C '--wal dir'",
    "migrations": "\n    m\n    n",
    "tool": "sqlx",
    "prepare": "alembic upgrade head",
    "depends_on": "alembic",
    "seed": "a.sql",
    "keep": "always",
    "tcp": "true",
    "database": "shop",
    "start_timeout": "9s",
    "build_timeout": "9m",
    "disk": "2GiB",
    "memory": "3GiB",
    "pids": "99",
    "tls": "true",
}
STEPS = [
    {"migrations_of": ["sqlx", "m"]},
    {"migrations_of": ["sqlx", "n"]},
    {"prepare": ["sh", "-c", "alembic upgrade head"], "depends_on": ["alembic"]},
    {"seed": "a.sql"},
]
SNAPSHOT = {
    "engine": "mariadb",
    "version": "11",
    "image": "oci:images/db",
    "locked": True,
    "packages": ["a", "b"],
    "settings": {"x": "1", "y": "2"},
    "initdb_args": ["--locale=C", "--wal dir"],
    "database": "shop",
    "start_timeout": "9s",
    "build_timeout": "9m",
    "disk": "2GiB",
    "memory": "3GiB",
    "pids": 99,
    "tls": True,
}
#: The same by a marker; steps and `keep` have their own.
MARKER = {name: value for name, value in SNAPSHOT.items() if name != "engine"}


@pytest.mark.parametrize(
    "tests, options, steps",
    [
        ("", OPTIONS, STEPS),
        (f"@pytest.mark.engine('mariadb', tcp=True, **{MARKER})\n@pytest.mark.keep('always')\n", {}, []),
    ],
    ids=["ini", "markers"],
)
def test_each_option_reaches_the_request(run, pytester, tests, options, steps):
    program = pytester.path / "program"
    greeting = json.dumps({"serve": 1, "version": "0.1.0"})
    program.write_text(f"#!/bin/sh\necho '{greeting}'\nread -r line\nprintf '%s' \"$line\" > request\n")
    program.chmod(0o755)
    run(f"{tests}def test_it(sandboxed_db): pass", program=program, **options).assert_outcomes(errors=1)
    params = json.loads((pytester.path / "request").read_text())["params"]
    assert params.pop("test").endswith("::test_it")
    snapshot = {**SNAPSHOT, "steps": steps}
    assert params == {"snapshot": snapshot, "directory": str(pytester.path), "tcp": True, "keep": "always"}


def test_the_table_above_has_all_options():
    assert [*OPTIONS, "program"] == [name for name, _, _ in INI]


def test_runs_without_databases_start_no_program(run):
    run("def test_it(): pass", program="/absent").assert_outcomes(passed=1)
