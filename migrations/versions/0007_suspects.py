"""Which lanes have deliveries that lost a lease and are due, answered without a look at all that is due.

The index is built concurrently, so that nobody waits for it; nearly always it is empty. Begun again, the
migration finds what is done, and what an interrupted building left unusable it builds anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

NAME = "ix_deliveries_suspects"

_INVALID = sa.text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")


def upgrade() -> None:
    """Build the index; that stops nobody, and waits for as long as the oldest transaction lasts."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        if not op.get_context().as_sql and op.get_bind().scalar(_INVALID, {"name": NAME}):
            op.drop_index(NAME, "deliveries", postgresql_concurrently=True)
        op.create_index(
            NAME,
            "deliveries",
            ["lane", "due_at"],
            postgresql_where=sa.text("lost > 0 AND due_at IS NOT NULL"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    """Take it away."""
    op.drop_index(NAME, "deliveries", if_exists=True)
