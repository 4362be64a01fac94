"""A message, a route or a reply, from the shell: send, check, explain."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service import telemetry
from service.commands.base import Config, fail, run
from service.settings import BadSettings, Settings

if TYPE_CHECKING:
    from service.mail.address import Address


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
        raise fail("--send-to needs --route: say which way the message takes.", status=2)
    telemetry.set_up(level="error", form=settings.log_format)
    wanted = checking.Wanted(
        route=route,
        to=address("--to", to),
        sender=address("--from", sender),
        send_to=address("--send-to", send_to),
    )

    def tell(text: str) -> None:
        if not as_json:
            typer.echo(text)

    try:
        findings = run(checking.check(settings, wanted, tell=tell))
    except checking.UnknownRoute as unknown:
        raise fail(str(unknown), status=2) from None
    if as_json:
        checking.print_json(findings)
    raise typer.Exit(1 if findings.result is Status.FAIL else 0)


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
        raise fail(str(refused), status=refused.status) from None


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
        raise fail(str(wrong), status=2) from None
    explanation = explaining.explain(asked.text, kind=asked.kind)
    if as_json:
        typer.echo(json.dumps(explanation.as_json({}), ensure_ascii=False))
    else:
        for line in explaining.readable(explanation):
            typer.echo(line)
    raise typer.Exit(0 if explanation.recognized is not None else 1)


def address(option: str, text: str | None) -> "Address | None":
    from service.mail.address import Address, BadAddress

    try:
        return None if text is None else Address.parse(text)
    except BadAddress as exc:
        raise fail(f"{option} takes an address: {exc.detail}", status=2) from None
