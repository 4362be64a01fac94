"""The place of a message in its caller's trace; a column that may be empty is added without a rewrite."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column. `IF NOT EXISTS`: 0003 is no transaction, and who begins again begins here too."""
    op.add_column("messages", sa.Column("traceparent", sa.Text), if_not_exists=True)


def downgrade() -> None:
    """Take it away."""
    op.drop_column("messages", "traceparent", if_exists=True)
