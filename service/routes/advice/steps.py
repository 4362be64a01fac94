"""How a way is set up: Postroom's settings, the guide's settings, SPF, PowerShell, admin centres.

    names.py           the real names that go into all of it
    configuration.py   Postroom's own settings
    guide.py           the guide's table of settings
    sender_policy.py   the SPF record
    commands.py        PowerShell
    centres.py         admin centres and portals

Commands are composed from the documentation of their parameters ("Exchange PowerShell" on
learn.microsoft.com, August 2026) and the guide; none was run against a tenant. Real names are
filled in where they are known; what an administrator has to fill in stands in angle brackets,
which PowerShell refuses.
"""

from dataclasses import dataclass

from service.routes.advice.centres import CENTRES
from service.routes.advice.commands import COMMANDS
from service.routes.advice.configuration import configuration
from service.routes.advice.guide import settings
from service.routes.advice.names import Names
from service.routes.advice.options import Option
from service.routes.advice.sender_policy import Spf, spf
from service.routes.kinds import CLOUDS, Cloud


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """Everything that has to be done for one way."""

    configuration: str | None  # YAML for Postroom's file; None where it has no such route
    settings: tuple[tuple[str, str], ...]  # the guide's table: setting, value
    spf: Spf
    powershell: tuple[str, ...]
    admin_centre: tuple[str, ...]
    unverified: tuple[str, ...]


def set_up(option: Option, names: Names) -> SetUp:
    """Write down how this way is set up."""
    return SetUp(
        configuration=configuration(option, names),
        settings=tuple(settings(option, names)),
        spf=spf(option, names),
        powershell=tuple(COMMANDS[option](names)),
        admin_centre=tuple(CENTRES[option](names)),
        unverified=tuple(_unverified(option, names)),
    )


def _unverified(option: Option, names: Names) -> list[str]:
    said = ["The PowerShell lines are composed from their documentation; none was run."]
    submission = {Option.CLIENT_SUBMISSION_OAUTH, Option.CLIENT_SUBMISSION_BASIC}
    mx = {Option.DIRECT_SEND, Option.SMTP_RELAY_CERTIFICATE, Option.SMTP_RELAY_IP}
    if option in submission:
        said.append(
            "What Microsoft answers to the 31st message of a minute (delay or refusal) is unverified."
        )
        said += cloud_marks(names.cloud)
    if option in mx:
        said.append("No number is published for the limits of direct send and relay.")
        if "spf_include" in CLOUDS[names.cloud].unverified:
            said.append("The SPF include of this cloud is known from one source.")
    if option is Option.SMTP_RELAY_CERTIFICATE:
        said.append("Whether the certificate needs the usage “client authentication” is unverified.")
    if option is Option.HIGH_VOLUME_EMAIL:
        said.append("How many accounts and connections a tenant may have is unverified.")
        if CLOUDS[names.cloud].high_volume is None:
            said.append("Whether High Volume Email is offered in this cloud is unverified.")
    if option is Option.CLIENT_SUBMISSION_BASIC:
        said.append("The day within December 2026 on which passwords go off by default is unverified.")
    return said


def cloud_marks(cloud: Cloud) -> list[str]:
    """Say what is not sure about the hosts of a national cloud."""
    said = {
        "submission_host": "The submission host of this cloud is known from one source, or sources differ; "
        "`host` can say another one.",
        "submission_scope": "The scope of access tokens in this cloud is known from one source, or sources differ.",
    }
    return [text for fact, text in said.items() if fact in CLOUDS[cloud].unverified]
