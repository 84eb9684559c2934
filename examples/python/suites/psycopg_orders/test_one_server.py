"""One server for the run, which the tests share: each rolls back its changes."""

import psycopg
import pytest


@pytest.fixture(scope="session")
def shared_url(sandboxed_db_session_factory):
    return sandboxed_db_session_factory().url


@pytest.fixture
def connection(shared_url):
    with psycopg.connect(shared_url) as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("article", ["tea", "milk"])
def test_an_order_is_seen_by_its_test(connection, article):
    connection.execute("insert into orders (article) values (%s)", (article,))
    assert connection.execute("select article from orders").fetchall() == [(article,)]
