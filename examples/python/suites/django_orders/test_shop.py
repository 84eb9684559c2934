import threading

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from shop.models import Order

# Each test has a migrated database, and Django's default connection leads to it.
pytestmark = pytest.mark.usefixtures("sandboxed_db_django")


@pytest.mark.parametrize("article", ["tea", "milk"])
def test_each_case_starts_without_orders(article):
    assert Order.objects.create(article=article).pk == 1


def test_transactions_are_real():
    # No transaction surrounds the test, so callbacks run, and other threads see what is committed.
    called = []
    with transaction.atomic():
        Order.objects.create(article="tea")
        transaction.on_commit(lambda: called.append(True))
    assert called == [True]

    def count():
        seen.append(Order.objects.count())
        connection.close()

    seen = []
    other = threading.Thread(target=count)
    other.start()
    other.join()
    assert seen == [1]


def test_tables_of_installed_applications_exist(client):
    User.objects.create_user("ada")
    assert User.objects.count() == 1
