"""The real names that go into settings and commands, where they are known."""

from dataclasses import dataclass
from typing import Any, Final

from service.mail.address import Address
from service.routes.advice.needs import IpAddress, Organization, is_public
from service.routes.kinds import Cloud

#: What an administrator has to fill in; PowerShell refuses angle brackets.
DOMAIN: Final = "<accepted domain>"
ADDRESS: Final = "<address>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The real names that go into settings and commands; None where one is not known."""

    sender: Address | None = None
    domain: str | None = None
    mx_host: str | None = None  # the tenant's MX, as an administrator wrote it into the configuration
    smarthost: str | None = None
    ips: tuple[IpAddress, ...] = ()  # public ones
    client_id: str | None = None
    tenant_id: str | None = None
    cloud: Cloud = Cloud.WORLDWIDE

    @property
    def address(self) -> str:
        return ADDRESS if self.sender is None else str(self.sender)

    @property
    def mx(self) -> str:
        return (
            self.mx_host
            or f"the host that the MX record of {self.domain or DOMAIN} names: read it, never "
            "build it from the domain's name"
        )


def names_of(organization: Organization, *, sender: Address | None, **known: Any) -> Names:
    """Collect the real names: the sender's domain before the organisation's first one."""
    domains = organization.accepted_domains
    own = sender is not None and (not domains or sender.domain in domains)
    return Names(
        sender=sender,
        domain=sender.domain if own and sender is not None else next(iter(domains), None),
        ips=tuple(ip for ip in organization.static_ips if is_public(ip)),
        tenant_id=organization.tenant_id,
        cloud=organization.cloud,
        **known,
    )
