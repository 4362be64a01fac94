"""What the ledger says to administrators."""

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from service.commands.base import Config, load, with_ledger


def basic_auth(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Who still logs in with a password? Exit status: 1 when something remains to be changed."""
    from service.submission.ways import basic_auth as retirement

    settings, now = load(config), datetime.now(UTC)
    uses = with_ledger(settings, lambda ledger: ledger.password_logins(since=now - retirement.SPAN))
    found = retirement.report(settings.route_book(), uses, now=now, application=None)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for line in retirement.readable(found):
            typer.echo(line)
    raise typer.Exit(1 if found["remaining"] else 0)
