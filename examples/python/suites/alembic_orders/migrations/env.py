import os

import sqlalchemy
from alembic import context

# sandboxed-db sets DATABASE_URL; SQLAlchemy takes the driver from the scheme.
url = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:", 1)

with sqlalchemy.create_engine(url).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
