"""The migrations as every process reads them, which never loads Alembic."""

from alembic.script import ScriptDirectory

from service.ledger import migrate


def test_the_history_is_alembics() -> None:
    """The head and all revisions are those that Alembic finds in the same files."""
    scripts = ScriptDirectory.from_config(migrate.configuration())

    assert migrate.head() == scripts.get_current_head()
    assert migrate.revisions() == {script.revision for script in scripts.walk_revisions()}
