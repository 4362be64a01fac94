"""What runs until it is stopped: API, worker, sandbox, all of them on a laptop; and the migration."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from service import telemetry
from service.commands.base import Config, fail, load, run


def api(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="The port to listen on.")] = None,
) -> None:
    """Serve the HTTP API. SIGTERM: finish what is in hand, exit 0."""
    from service import wiring

    settings = load(config)
    for warning in settings.warnings():
        typer.echo(f"warning: {warning}", err=True)
    run(wiring.run_api(settings, host=host, port=port))


def worker(config: Config = None) -> None:
    """Send what is due. SIGTERM: take nothing new, finish what is in hand, exit 0."""
    from service import wiring

    run(wiring.run_worker(load(config)))


def migrate(config: Config = None) -> None:
    """Bring the database to this version's schema; safe to run twice and at once.

    A database that is newer than this version is left as it is.
    """
    from service.ledger import migrate as migrations
    from service.ledger.engine import is_unavailable
    from service.ledger.reasons import why

    settings = load(config)
    try:
        found = migrations.upgrade(settings.database_url.get_secret_value())
    except Exception as exc:
        if is_unavailable(exc):
            raise fail(str(why(exc))) from None
        raise
    newer = f", which is newer than this version ({migrations.head()}): nothing was changed"
    typer.echo(f"The database is at revision {found}{newer if found != migrations.head() else ''}.", err=True)


def sandbox(
    state: Annotated[Path, typer.Option(help="Where its authority and certificates are kept.")] = Path(
        ".postroom/sandbox"
    ),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    submission_port: Annotated[int, typer.Option(help="SMTP AUTH submission, with STARTTLS.")] = 2587,
    mx_port: Annotated[int, typer.Option(help="The tenant's MX: Direct Send and relay.")] = 2525,
    hve_port: Annotated[int, typer.Option(help="High Volume Email.")] = 2588,
    acs_port: Annotated[int, typer.Option(help="Azure Communication Services.")] = 2589,
    http_port: Annotated[int, typer.Option(help="What it took, and its switches.")] = 2580,
    https_port: Annotated[int, typer.Option(help="The token endpoint.")] = 2443,
) -> None:
    """Run the simulated Microsoft 365 alone."""
    from service.sandbox import HELP, BadSandbox, SandboxBusy, contoso, run_sandbox

    telemetry.set_up(level="info", form="console")
    typer.echo(HELP, err=True)
    try:
        configuration = contoso(
            state,
            host=host,
            submission_port=submission_port,
            mx_port=mx_port,
            hve_port=hve_port,
            acs_port=acs_port,
            http_port=http_port,
            https_port=https_port,
        )
        run(run_sandbox(configuration))
    except KeyboardInterrupt:
        return
    except (BadSandbox, SandboxBusy, OSError, ValueError) as exc:
        raise fail(f"The sandbox cannot start: {exc}") from None


def dev(
    state: Annotated[
        Path, typer.Option(envvar="POSTROOM_STATE", help="Where everything is kept between runs.")
    ] = Path(".postroom"),
    port: Annotated[int, typer.Option(help="The API's port.")] = 8025,
) -> None:
    """Run the whole service on this machine, with nothing installed but Python."""
    from service.local.dev import dev as run_dev

    telemetry.set_up(level="warning", form="console")
    # Servers end with the thread that started them, so this runs in the main thread's own loop.
    raise typer.Exit(asyncio.run(run_dev(state, port=port)))


def openapi() -> None:
    """Print the OpenAPI document; needs no configuration."""
    from service.submission.contract.document import main as print_document

    print_document()
