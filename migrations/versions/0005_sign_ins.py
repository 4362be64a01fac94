"""Who is signed in at the console.

`IF NOT EXISTS`: 0003 is no transaction, and who begins again begins here too.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"

_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "sign_ins",
        sa.Column("id", sa.Text(collation="C"), primary_key=True),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.Text(collation="C")),
        sa.Column("person", JSONB),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(key_id IS NULL) <> (person IS NULL)", name="one_of_both"),
        sa.UniqueConstraint("hash"),
        if_not_exists=True,
    )
    op.create_index(op.f("ix_sign_ins_expires_at"), "sign_ins", ["expires_at"], if_not_exists=True)


def downgrade() -> None:
    """Take it away: whoever was signed in signs in anew."""
    op.drop_table("sign_ins", if_exists=True)
