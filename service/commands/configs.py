"""The configuration that is in force, and what it may say."""

import json
from typing import Annotated

import typer

from service.commands.base import Config, load
from service.settings import Settings


def show(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show every setting that is in force, where it comes from, and no secret."""
    settings = load(config)
    effective = settings.effective()
    if as_json:
        typer.echo(
            json.dumps([
                {"name": each.name, "value": each.value, "source": each.source} for each in effective
            ], default=str)
        )  # fmt: skip
    else:
        width = max((len(each.name) for each in effective), default=0)
        for each in effective:
            typer.echo(f"{each.name:<{width}}  {json.dumps(each.value, default=str)}  ({each.source})")
    for warning in settings.warnings():
        typer.echo(f"warning: {warning}", err=True)


def schema() -> None:
    """Print the JSON schema of the configuration file."""
    typer.echo(json.dumps(Settings.schema(), indent=2))
