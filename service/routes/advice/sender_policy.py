"""The SPF record that belongs to a way (RFC 7208)."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from service.routes.advice.names import DOMAIN, Names
from service.routes.advice.options import Option
from service.routes.kinds import CLOUDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Spf:
    """The SPF record that belongs to a way (RFC 7208)."""

    domain: str
    record: str | None  # None: none is needed, or another place shows it; the notes say which
    notes: tuple[str, ...]


_ONE_RECORD = (
    "A domain has one SPF record: where there is one already, put these mechanisms into it (RFC 7208 §3.2)."
)


def spf(option: Option, names: Names) -> Spf:
    """Write the record for this way, and what to know about it."""
    domain = names.domain or DOMAIN
    include = f"include:{CLOUDS[names.cloud].spf_include}"
    match option:
        case (
            Option.DIRECT_SEND | Option.SMTP_RELAY_CERTIFICATE | Option.SMTP_RELAY_IP | Option.OWN_MAIL_SERVER
        ):
            own = [f"{'ip4' if isinstance(ip, IPv4Address) else 'ip6'}:{ip}" for ip in names.ips]
            caution = (
                "Whoever can send from these addresses passes SPF for the domain (the guide); public addresses only, "
                "although the guide's own example is a private one."
                if own
                else "No public static address is known (organization.egress.static_ips): without one in the record, "
                "this mail does not pass SPF and is taken for spam sooner."
            )
            return Spf(
                domain=domain,
                record=" ".join(["v=spf1", *own, include, "~all"]),
                notes=(_ONE_RECORD, caution),
            )
        case Option.AZURE_COMMUNICATION_SERVICES | Option.SPECIALISED_PROVIDER:
            return Spf(
                domain=domain,
                record=None,
                notes=("The portal shows the record, and DKIM's, when it verifies the domain.", _ONE_RECORD),
            )
        case Option.HIGH_VOLUME_EMAIL:
            return Spf(
                domain=domain,
                record=None,
                notes=(
                    "No record is needed: this mail stays inside Microsoft 365, where SPF is not asked (inferred).",
                ),
            )
        case _:
            return Spf(
                domain=domain,
                record=f"v=spf1 {include} -all",
                notes=(
                    (
                        "This mail leaves from Microsoft's addresses (inferred). Use ~all as long as another server sends "
                        "for the domain."
                    ),
                    _ONE_RECORD,
                ),
            )
