"""What every command needs: the configuration, the loop, errors in one line, the ledger."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from service import telemetry
from service.settings import BadSettings, Settings

Result = TypeVar("Result")

Config = Annotated[
    Path | None,
    typer.Option("--config", envvar="POSTROOM_CONFIG", help="The YAML file; the environment goes first."),
]


def load(config: Path | None) -> Settings:
    """Load the configuration and set logging up; ends with 2 and a line for each mistake."""
    try:
        settings = Settings.load(config)
    except BadSettings as wrong:
        for line in wrong.lines:
            typer.echo(line, err=True)
        raise typer.Exit(2) from None
    telemetry.set_up(level=settings.log_level, form=settings.log_format)
    return settings


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run the work on uvloop, which is asyncio's loop in C."""
    import uvloop

    from service.memory import give_back_large_buffers

    give_back_large_buffers()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def fail(message: str, *, status: int = 1) -> typer.Exit:
    """Say why on stderr, and give what ends the command with this status."""
    typer.echo(message, err=True)
    return typer.Exit(status)


def with_ledger(settings: Settings, act: Any) -> Any:
    """Return what `act` makes of an open ledger; ends with 1 and the reason where the ledger is not to be had."""
    from service import wiring
    from service.ledger import LedgerUnavailable
    from service.ledger.reasons import why

    async def work() -> Any:
        ledger = wiring.open_ledger(settings, name="command")
        try:
            return await act(ledger)
        finally:
            await ledger.dispose()

    try:
        return asyncio.run(work())
    except LedgerUnavailable as gone:
        raise fail(str(why(gone))) from None
