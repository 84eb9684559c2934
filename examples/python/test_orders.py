import psycopg
import pytest


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


def test_others_see_commits(connection, database_url):
    place(connection, "tea")
    with psycopg.connect(database_url) as other:
        assert other.execute("select article from orders").fetchall() == [("tea",)]
