"""Fixtures that start a pristine PostgreSQL server for each test."""

import subprocess

import psycopg
import pytest

# Prints the server's URL and waits until this process closes the pipe or ends.
SERVER = ["sandboxed-db", "run", "--seed", "../orders.sql", "--", "sh", "-c", 'echo "$DATABASE_URL"; exec cat']


@pytest.fixture
def database_url():
    with subprocess.Popen(SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().strip()
        assert url, "the server did not start; see above"
        yield url
        server.stdin.close()


@pytest.fixture
def connection(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection
