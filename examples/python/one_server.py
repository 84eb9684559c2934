"""One server for the whole run, which the tests share: each rolls back its changes.

Run it by `sandboxed-db run --seed ../orders.sql -- pytest one_server.py`.
"""

import psycopg
import pytest


@pytest.fixture
def connection():
    # psycopg reads PGHOST and the like; DATABASE_URL is set, too.
    with psycopg.connect() as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("article", ["tea", "milk"])
def test_an_order_is_seen_by_its_test(connection, article):
    connection.execute("insert into orders (article) values (%s)", (article,))
    assert connection.execute("select article from orders").fetchall() == [(article,)]
