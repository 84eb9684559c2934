import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("orders", sa.Column("customer", sa.Text, nullable=False, server_default="cash"))


def downgrade():
    op.drop_column("orders", "customer")
