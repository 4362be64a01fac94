"""The command `postroom` (also `python -m service`).

Each command reads the configuration first; what is wrong with it is said on stderr, one line
a mistake, and the exit status is 2. Logs go to stderr, `--json` alone goes to stdout.
"""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from service import telemetry
from service.settings import BadSettings, Settings

if TYPE_CHECKING:
    from service.mail.address import Address

Result = TypeVar("Result")

app = typer.Typer(
    name="postroom",
    help="A company's own mail-sending API on top of Microsoft 365.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="API keys of applications.", no_args_is_help=True)
config_app = typer.Typer(help="The effective configuration.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.add_typer(config_app, name="config")
report_app = typer.Typer(help="Reports from the ledger.", no_args_is_help=True)
app.add_typer(report_app, name="report")

Config = Annotated[
    Path | None,
    typer.Option("--config", envvar="POSTROOM_CONFIG", help="The YAML file; the environment goes first."),
]


def _settings(config: Path | None) -> Settings:
    try:
        settings = Settings.load(config)
    except BadSettings as wrong:
        for line in wrong.lines:
            typer.echo(line, err=True)
        raise typer.Exit(2) from None
    telemetry.set_up(level=settings.log_level, form=settings.log_format)
    return settings


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run the work on uvloop, which is asyncio's loop in C."""
    import uvloop

    from service.memory import give_back_large_buffers

    give_back_large_buffers()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _fail(message: str, *, status: int = 1) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(status)


@app.command()
def api(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="The port to listen on.")] = None,
) -> None:
    """Serve the HTTP API. SIGTERM: finish what is in hand, exit 0."""
    from service import wiring

    settings = _settings(config)
    for warning in settings.warnings():
        typer.echo(f"warning: {warning}", err=True)
    _run(wiring.run_api(settings, host=host, port=port))


@app.command()
def worker(config: Config = None) -> None:
    """Send what is due. SIGTERM: take nothing new, finish what is in hand, exit 0."""
    from service import wiring

    _run(wiring.run_worker(_settings(config)))


@app.command()
def migrate(config: Config = None) -> None:
    """Bring the database to this version's schema; safe to run twice and at once.

    A database that is newer than this version is left as it is.
    """
    from service.ledger import migrate as migrations
    from service.ledger.engine import is_unavailable
    from service.ledger.reasons import why

    settings = _settings(config)
    try:
        found = migrations.upgrade(settings.database_url.get_secret_value())
    except Exception as exc:
        if is_unavailable(exc):
            raise _fail(str(why(exc))) from None
        raise
    newer = f", which is newer than this version ({migrations.head()}): nothing was changed"
    typer.echo(f"The database is at revision {found}{newer if found != migrations.head() else ''}.", err=True)


@app.command()
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
        _run(run_sandbox(configuration))
    except KeyboardInterrupt:
        return
    except (BadSandbox, SandboxBusy, OSError, ValueError) as exc:
        raise _fail(f"The sandbox cannot start: {exc}") from None


@app.command()
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


@app.command(hidden=True)
def openapi() -> None:
    """Print the OpenAPI document; needs no configuration."""
    from service.submission.contract.document import main as print_document

    print_document()


@app.command()
def check(
    config: Config = None,
    route: Annotated[
        str | None, typer.Option(help="Check this route only; all that are enabled unless set.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="The recipient to name in RCPT; nothing is sent.")] = None,
    sender: Annotated[str | None, typer.Option("--from", help="The sender to name in MAIL.")] = None,
    send_to: Annotated[
        str | None, typer.Option(help="Then send a real message here through --route, and follow it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check configuration, database, Redis and every route, without sending; exit 1 when a step failed."""
    from service.local import check as checking
    from service.routes.preflight.steps import Status

    try:
        settings = Settings.load(config)
    except BadSettings as wrong:
        for line in wrong.lines:
            typer.echo(line, err=True)
        if as_json:
            typer.echo(checking.wrong_configuration(wrong.lines))
        raise typer.Exit(2) from None
    if send_to is not None and route is None:
        raise _fail("--send-to needs --route: say which way the message takes.", status=2)
    telemetry.set_up(level="error", form=settings.log_format)
    wanted = checking.Wanted(
        route=route,
        to=_address("--to", to),
        sender=_address("--from", sender),
        send_to=_address("--send-to", send_to),
    )

    def tell(text: str) -> None:
        if not as_json:
            typer.echo(text)

    try:
        findings = _run(checking.check(settings, wanted, tell=tell))
    except checking.UnknownRoute as unknown:
        raise _fail(str(unknown), status=2) from None
    if as_json:
        checking.print_json(findings)
    raise typer.Exit(1 if findings.result is Status.FAIL else 0)


@app.command()
def send(
    to: Annotated[list[str], typer.Option(help="A recipient; repeat it for more.")],
    sender: Annotated[str, typer.Option("--from", help="Who it is from: a@b, or 'Name <a@b>'.")],
    subject: Annotated[str | None, typer.Option(help="The subject; a template has one of its own.")] = None,
    text: Annotated[str | None, typer.Option(help="The text; - reads it from stdin.")] = None,
    html: Annotated[str | None, typer.Option(help="The HTML.")] = None,
    attach: Annotated[list[Path] | None, typer.Option(help="A file; repeat it for more.")] = None,
    cc: Annotated[list[str] | None, typer.Option(help="Repeat it for more.")] = None,
    bcc: Annotated[list[str] | None, typer.Option(help="Repeat it for more.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="'Name: value'; repeat it for more.")] = None,
    route: Annotated[str | None, typer.Option(help="A route's name; auto unless said.")] = None,
    template: Annotated[
        str | None, typer.Option(help="A template's id or name, instead of subject, text and HTML.")
    ] = None,
    variables: Annotated[
        str | None, typer.Option(help="What is put into the template: a JSON object, or @FILE with one.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Not before this time: 2026-11-26T19:40, or 30s, 10m, 2h, 3d from now.")
    ] = None,
    priority: Annotated[str | None, typer.Option(help="high, normal or low.")] = None,
    stream: Annotated[
        str | None, typer.Option(help="transactional unless said; bulk never takes client submission.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag to find it by; repeat it for more.")] = None,
    url: Annotated[
        str, typer.Option(envvar="POSTROOM_URL", help="Where the API is.")
    ] = "http://127.0.0.1:8025",
    key: Annotated[
        str | None,
        typer.Option(
            envvar="POSTROOM_KEY", show_envvar=True, help="The API key; that of `postroom dev` unless given."
        ),
    ] = None,
    state: Annotated[
        Path, typer.Option(envvar="POSTROOM_STATE", help="Where `postroom dev` keeps its key.")
    ] = Path(".postroom"),
    timeout: Annotated[float, typer.Option(min=0, help="How long to follow it, in seconds.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the message's last state as JSON.")] = False,
) -> None:
    """Send one message through the API and follow it to its end.

    While it waits, the last line says where it is, why, and when it is expected.

    Exit status: 0 sent; 1 refused, failed, expired or partly sent; 2 wrong use; 3 it still waits.
    """
    from service.local.send import Api, NotSent, find_key, message_of
    from service.local.send import send as send_one

    try:
        message = message_of(
            sender=sender,
            to=to,
            cc=cc or (),
            bcc=bcc or (),
            subject=subject,
            text=text,
            html=html,
            headers=header or (),
            attach=attach or (),
            route=route,
            template=template,
            variables=variables,
            schedule=schedule,
            priority=priority,
            stream=stream,
            tags=tag or (),
        )
        api = Api(url=url, key=find_key(key, state=state))
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        raise typer.Exit(send_one(api, message, timeout=timeout, as_json=as_json, colour=colour))
    except NotSent as refused:
        raise _fail(str(refused), status=refused.status) from None


@app.command()
def explain(
    text: Annotated[
        str, typer.Argument(help="A reply, a log line, an exception, a report; - reads it from stdin.")
    ],
    kind: Annotated[
        str | None, typer.Option(help="The kind of route on which it came: client_submission, smtp_relay …")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the explanation as JSON.")] = False,
) -> None:
    """Say what an SMTP reply means, who must act and how; needs no configuration.

    Exit status: 0 recognised; 1 nothing in the text was; 2 wrong use.
    """
    from service.local import explain as explaining

    try:
        asked = explaining.question(text, kind=kind)
    except explaining.WrongUse as wrong:
        raise _fail(str(wrong), status=2) from None
    explanation = explaining.explain(asked.text, kind=asked.kind)
    if as_json:
        typer.echo(json.dumps(explanation.as_json({}), ensure_ascii=False))
    else:
        for line in explaining.readable(explanation):
            typer.echo(line)
    raise typer.Exit(0 if explanation.recognized is not None else 1)


# -- reports ----------------------------------------------------------------------------------


@report_app.command("basic-auth")
def report_basic_auth(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Who still logs in with a password? Exit status: 1 when something remains to be changed."""
    from service.submission.ways import basic_auth

    settings, now = _settings(config), datetime.now(UTC)
    uses = _with_ledger(settings, lambda ledger: ledger.password_logins(since=now - basic_auth.SPAN))
    found = basic_auth.report(settings.route_book(), uses, now=now, application=None)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for line in basic_auth.readable(found):
            typer.echo(line)
    raise typer.Exit(1 if found["remaining"] else 0)


# -- keys -------------------------------------------------------------------------------------


@keys_app.command("create")
def keys_create(
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

    settings = _settings(config)
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
        raise _fail(str(wrong), status=2) from None
    key = _with_ledger(settings, lambda ledger: ledger.keys.create(wanted, actor=keys.actor()))
    if as_json:
        typer.echo(json.dumps({"id": key.id, "key": key.token}))
        return
    typer.echo(f"{key.id} for {wanted.application}. The key is shown once:", err=True)
    typer.echo(key.token)


@keys_app.command("list")
def keys_list(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the keys as JSON.")] = False,
) -> None:
    """List all keys, never their secrets."""
    from service.local import keys

    found = _with_ledger(_settings(config), lambda ledger: ledger.list_keys())
    if as_json:
        typer.echo(json.dumps([keys.as_json(key) for key in found]))
        return
    now = datetime.now(UTC)
    for key in found:
        typer.echo(keys.readable(key, now=now))


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the key: key_…")],
    config: Config = None,
) -> None:
    """Close a key for ever; every process shuts it out within 3 seconds."""
    from service.local import keys

    if not _with_ledger(_settings(config), lambda ledger: ledger.keys.revoke(key_id, actor=keys.actor())):
        raise _fail(keys.why_not("unknown"))
    typer.echo(f"{key_id} is revoked.", err=True)


@keys_app.command("rotate")
def keys_rotate(
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
        raise _fail(str(wrong), status=2) from None
    outcome = _with_ledger(
        _settings(config), lambda ledger: ledger.keys.rotate(key_id, overlap=span, actor=keys.actor())
    )
    if isinstance(outcome, str):
        raise _fail(keys.why_not(outcome))
    if as_json:
        typer.echo(json.dumps({"id": outcome.new.id, "key": outcome.new.token}))
        return
    typer.echo(keys.rotated(outcome), err=True)
    typer.echo(outcome.new.token)


def _with_ledger(settings: Settings, act: Any) -> Any:
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
        raise _fail(str(why(gone))) from None


def _address(option: str, text: str | None) -> "Address | None":
    from service.mail.address import Address, BadAddress

    try:
        return None if text is None else Address.parse(text)
    except BadAddress as exc:
        raise _fail(f"{option} takes an address: {exc.detail}", status=2) from None


# -- configuration ----------------------------------------------------------------------------


@config_app.command("show")
def config_show(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show every setting that is in force, where it comes from, and no secret."""
    settings = _settings(config)
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


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the configuration file."""
    typer.echo(json.dumps(Settings.schema(), indent=2))


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
