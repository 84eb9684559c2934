"""Each test has its own server, so it may commit, drop tables and run beside the others."""

import psycopg
import pytest


@pytest.fixture
def connection(sandboxed_db_url):
    with psycopg.connect(sandboxed_db_url, autocommit=True) as connection:
        yield connection


def place(connection, article):
    insert = "insert into orders (article) values (%s) returning id"
    return connection.execute(insert, (article,)).fetchone()[0]


@pytest.mark.parametrize("article", ["tea", "a cup of 'tea'"])
def test_each_case_starts_without_orders(connection, article):
    assert place(connection, article) == 1


def test_an_order_needs_an_article(connection):
    with pytest.raises(psycopg.errors.NotNullViolation):
        place(connection, None)


def test_tables_can_be_dropped(connection):
    connection.execute("drop table orders")


def test_others_see_commits(connection, sandboxed_db_url):
    place(connection, "tea")
    with psycopg.connect(sandboxed_db_url) as other:
        assert other.execute("select article from orders").fetchall() == [("tea",)]


@pytest.mark.seed("hundred.sql")
def test_a_marker_adds_a_seed(connection):
    assert place(connection, "tea") == 101


@pytest.mark.engine(settings={"default_transaction_isolation": "serializable"})
def test_a_marker_changes_settings(connection):
    assert connection.execute("show default_transaction_isolation").fetchone() == ("serializable",)


def test_a_factory_starts_a_second_server(connection, sandboxed_db_factory):
    place(connection, "tea")
    archive = sandboxed_db_factory(seed=["orders.sql", "hundred.sql"])
    with psycopg.connect(archive.url) as other:
        assert other.execute("select count(*) from orders").fetchone() == (100,)
