"""The command `postroom` (also `python -m service`): which commands there are; what they do is in `commands`."""

import typer

from service.commands import configs, keys, mail, programs, reports


def _group(about: str) -> typer.Typer:
    return typer.Typer(help=about, no_args_is_help=True)


app = typer.Typer(
    name="postroom",
    help="A company's own mail-sending API on top of Microsoft 365.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(programs.api)
app.command()(programs.worker)
app.command()(programs.migrate)
app.command()(programs.sandbox)
app.command()(programs.dev)
app.command(hidden=True)(programs.openapi)
app.command()(mail.check)
app.command()(mail.send)
app.command()(mail.explain)

_keys = _group("API keys of applications.")
_keys.command("create")(keys.create)
_keys.command("list")(keys.listed)
_keys.command("revoke")(keys.revoke)
_keys.command("rotate")(keys.rotate)
app.add_typer(_keys, name="keys")

_config = _group("The effective configuration.")
_config.command("show")(configs.show)
_config.command("schema")(configs.schema)
app.add_typer(_config, name="config")

_report = _group("Reports from the ledger.")
_report.command("basic-auth")(reports.basic_auth)
app.add_typer(_report, name="report")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
