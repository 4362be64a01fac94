"""API keys of applications: made, listed, rotated, revoked."""

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from service.commands.base import Config, fail, load, with_ledger


def create(
    name: Annotated[str, typer.Argument(help="The application that will use the key.")],
    config: Config = None,
    label: Annotated[str | None, typer.Option(help="What its owner calls this key.")] = None,
    scopes: Annotated[
        list[str] | None,
        typer.Option(help="Comma-separated or repeated; all but keys.rotate, operate and admin unless said."),
    ] = None,
    senders: Annotated[
        list[str] | None,
        typer.Option(help="Addresses or @domains that it may send from, comma-separated or repeated."),
    ] = None,
    routes: Annotated[list[str] | None, typer.Option(help="Routes that its mail may take.")] = None,
    recipient_domains: Annotated[list[str] | None, typer.Option(help="Domains that it may send to.")] = None,
    networks: Annotated[
        list[str] | None, typer.Option(help="Networks that it may be used from: 10.0.0.0/8.")
    ] = None,
    messages_per_minute: Annotated[int | None, typer.Option(help="Its allowance in a minute.")] = None,
    messages_per_day: Annotated[int | None, typer.Option(help="Its allowance in 24 hours.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 90d from now, or 2027-01-01T00:00:00Z.")
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Its mail goes to the sandbox only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print id and key as JSON.")] = False,
) -> None:
    """Make a key and show it, once."""
    from service.local import keys

    settings = load(config)
    given = {
        "scopes": scopes,
        "senders": senders,
        "routes": routes,
        "recipient_domains": recipient_domains,
        "networks": networks,
        "messages_per_minute": messages_per_minute,
        "messages_per_day": messages_per_day,
    }
    try:
        wanted = keys.wanted(
            name,
            label=label,
            given=given,
            test=test,
            expires=expires,
            routes=[route.name for route in settings.routes],
        )
    except keys.WrongUse as wrong:
        raise fail(str(wrong), status=2) from None
    key = with_ledger(settings, lambda ledger: ledger.keys.create(wanted, actor=keys.actor()))
    if as_json:
        typer.echo(json.dumps({"id": key.id, "key": key.token}))
        return
    typer.echo(f"{key.id} for {wanted.application}. The key is shown once:", err=True)
    typer.echo(key.token)


def listed(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the keys as JSON.")] = False,
) -> None:
    """List all keys, never their secrets."""
    from service.local import keys

    found = with_ledger(load(config), lambda ledger: ledger.list_keys())
    if as_json:
        typer.echo(json.dumps([keys.as_json(key) for key in found]))
        return
    now = datetime.now(UTC)
    for key in found:
        typer.echo(keys.readable(key, now=now))


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the key: key_…")],
    config: Config = None,
) -> None:
    """Close a key for ever; every process shuts it out within 3 seconds."""
    from service.local import keys

    if not with_ledger(load(config), lambda ledger: ledger.keys.revoke(key_id, actor=keys.actor())):
        raise fail(keys.why_not("unknown"))
    typer.echo(f"{key_id} is revoked.", err=True)


def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the key: key_…")],
    config: Config = None,
    overlap: Annotated[str, typer.Option(help="How long the old key lives on: 0s, 30m, 24h, 7d.")] = "24h",
    as_json: Annotated[bool, typer.Option("--json", help="Print id and key as JSON.")] = False,
) -> None:
    """Make a key with the same rights and show it, once; the old one lives on for the overlap."""
    from service.local import keys

    try:
        span = keys.overlap(overlap)
    except keys.WrongUse as wrong:
        raise fail(str(wrong), status=2) from None
    outcome = with_ledger(
        load(config), lambda ledger: ledger.keys.rotate(key_id, overlap=span, actor=keys.actor())
    )
    if isinstance(outcome, str):
        raise fail(keys.why_not(outcome))
    if as_json:
        typer.echo(json.dumps({"id": outcome.new.id, "key": outcome.new.token}))
        return
    typer.echo(keys.rotated(outcome), err=True)
    typer.echo(outcome.new.token)
