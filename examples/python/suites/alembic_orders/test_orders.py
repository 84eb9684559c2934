import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    article: Mapped[str]
    customer: Mapped[str] = mapped_column(server_default="cash")


@pytest.fixture
def engine(sandboxed_db):
    engine = sa.create_engine(sandboxed_db.url_for("postgresql+psycopg"))
    yield engine
    engine.dispose()


@pytest.mark.parametrize("article", ["tea", "milk"])
def test_each_case_starts_without_orders(engine, article):
    with Session(engine) as session:
        order = Order(article=article)
        session.add(order)
        session.commit()
        assert (order.id, order.customer) == (1, "cash")


def test_the_database_is_at_the_last_revision(engine):
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select version_num from alembic_version")) == "0002"


def test_sqlalchemy_connects_by_asyncpg(sandboxed_db):
    import asyncio

    from sqlalchemy.ext.asyncio import create_async_engine

    async def count():
        engine = create_async_engine(sandboxed_db.url_for("postgresql+asyncpg"))
        async with engine.connect() as connection:
            found = await connection.scalar(sa.select(sa.func.count()).select_from(Order))
        await engine.dispose()
        return found

    assert asyncio.run(count()) == 0
