"""What is kept for how long, and who was erased: small tables of their own, and nothing on the large ones."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables. `IF NOT EXISTS`: 0003 is no transaction, and who begins again begins here too."""
    op.create_table(
        "retention",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("through", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint("kind", name="pk_retention"),
        if_not_exists=True,
    )
    op.create_table(
        "retention_open",
        sa.Column("message_id", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("message_id", name="pk_retention_open"),
        if_not_exists=True,
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("messages", sa.Integer, nullable=False, server_default="0"),
        sa.Column("waiting", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
        sa.CheckConstraint(
            "(address IS NULL) = (finished_at IS NOT NULL)", name="ck_erasures_address_while_needed"
        ),
        if_not_exists=True,
    )
    op.create_index(
        "ix_erasures_unfinished",
        "erasures",
        ["id"],
        postgresql_where=sa.text("finished_at IS NULL"),
        if_not_exists=True,
    )


def downgrade() -> None:
    """Take them away."""
    for table in ("erasures", "retention_open", "retention"):
        op.drop_table(table, if_exists=True)
