import asyncio

import asyncpg
import pytest


def run(url, body):
    """Runs a coroutine function with a pool; pytest-asyncio's fixtures work as well."""

    async def main():
        async with asyncpg.create_pool(url, min_size=1, max_size=4) as pool:
            return await body(pool)

    return asyncio.run(main())


@pytest.mark.parametrize("customer", ["Ada", "Bob"])
def test_each_case_starts_without_orders(sandboxed_db_url, customer):
    async def body(pool):
        insert = "insert into orders (article, customer) values ('tea', $1) returning id"
        return await pool.fetchval(insert, customer)

    assert run(sandboxed_db_url, body) == 1


def test_connections_run_side_by_side(sandboxed_db_url):
    async def body(pool):
        await asyncio.gather(*(pool.execute("insert into orders (article) values ('tea')") for _ in range(20)))
        return await pool.fetchval("select count(*) from orders")

    assert run(sandboxed_db_url, body) == 20
