"""What the configuration of a real installation would say, with the sandbox in Microsoft's place.

All kinds of routes are there, so that each can be tried by its name; `auto` takes client
submission for the mailbox, direct send and the connector for senders without one.
"""

from typing import Any

import yaml

from service.local.example import SENDER
from service.sandbox import Sandbox, SandboxConfig

_HEAD = "# Written by `postroom dev` at each start. Environment variables (POSTROOM_…) go over it.\n"


def configuration(tenant: SandboxConfig, sandbox: Sandbox, *, database_url: str, redis_url: str) -> str:
    """Write the configuration file for this tenant."""
    application = tenant.applications[0]
    entra = {
        "tenant_id": tenant.tenant_id,
        "authority": f"https://localhost:{sandbox.https_port}",
        "ca_file": str(sandbox.ca_file),
        "api": _callers(tenant),
    }
    oauth = {
        "method": "oauth",
        "client_id": application.client_id,
        "client_secret": application.client_secret,
    }
    settings = {
        "database_url": database_url,
        "redis_url": redis_url,
        "organization": {
            "accepted_domains": list(tenant.accepted_domains),
            "licences": 25,
            "egress": {"static_ips": ["203.0.113.10"], "hosting": "own_static_ip"},
        },
        "entra": entra,
        "routes": [
            _submission(tenant, sandbox, oauth),
            _direct_send(tenant, sandbox),
            _relay(tenant, sandbox),
            _high_volume(tenant, sandbox, oauth),
            _communication_services(tenant, sandbox),
        ],
        "route_order": ["noreply", "inside", "connector"],
        "sandbox": _test_keys(tenant, sandbox),
        # A rehearsal: what rests for minutes or hours at Microsoft rests for moments here.
        "webhooks": {"allow_private": True, "allow_http": True},  # for a receiver on this machine
        "dispatch": {"retry": {"first": "2s", "cap": "10s"}, "uncertain_after": "30s"},
    }
    return _HEAD + yaml.safe_dump(settings, sort_keys=False)


def _callers(tenant: SandboxConfig) -> dict[str, Any]:
    """Take the access tokens of the applications that have app roles here."""
    audience = [name for api in tenant.apis for name in (api.client_id, api.identifier)]
    named = [each.client_id for each in tenant.applications if each.api_roles]
    return {
        "audience": audience,
        "applications": [
            {"client_id": client_id, "name": "entra-demo", "senders": [SENDER]} for client_id in named
        ],
    }


def _dialled(tenant: SandboxConfig, sandbox: Sandbox, port: int) -> dict[str, Any]:
    """How a route reaches the sandbox; its `host` stays Microsoft's."""
    return {
        "connect_to": f"{tenant.host}:{port}",
        "ca_file": str(sandbox.ca_file),
        "ehlo_name": "postroom.contoso.com",
    }


def _test_keys(tenant: SandboxConfig, sandbox: Sandbox) -> dict[str, Any]:
    """The way of test keys: the tenant's MX, as the chart has it. It needs no login, so they keep their own senders."""
    return {
        "enabled": True,
        "host": "localhost",
        "port": sandbox.mx_port,
        "connect_to": f"{tenant.host}:{sandbox.mx_port}",
        "tls": "required",
        "ca_file": str(sandbox.ca_file),
    }


def _mx(tenant: SandboxConfig) -> str:
    return f"{tenant.accepted_domains[0].replace('.', '-')}.mail.protection.outlook.com"


def _submission(tenant: SandboxConfig, sandbox: Sandbox, oauth: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "noreply",
        "kind": "client_submission",
        "host": "smtp.office365.com",
        "port": 587,
        **_dialled(tenant, sandbox, sandbox.submission_port),
        "mailboxes": [{"address": SENDER, "login": oauth, "send_as": list(tenant.mailboxes[0].send_as)}],
    }


def _direct_send(tenant: SandboxConfig, sandbox: Sandbox) -> dict[str, Any]:
    return {
        "name": "inside",
        "kind": "direct_send",
        "host": _mx(tenant),
        **_dialled(tenant, sandbox, sandbox.mx_port),
    }


def _relay(tenant: SandboxConfig, sandbox: Sandbox) -> dict[str, Any]:
    return {
        "name": "connector",
        "kind": "smtp_relay",
        "host": _mx(tenant),
        **_dialled(tenant, sandbox, sandbox.mx_port),
        "authenticate_by": "certificate",
        "client_certificate": {
            "certificate_file": str(sandbox.client_certificate),
            "private_key_file": str(sandbox.client_key),
        },
    }


def _high_volume(tenant: SandboxConfig, sandbox: Sandbox, oauth: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "high-volume",
        "kind": "high_volume_email",
        **_dialled(tenant, sandbox, sandbox.hve_port),
        "accounts": [{"address": tenant.hve_accounts[0].address, "login": oauth}],
    }


def _communication_services(tenant: SandboxConfig, sandbox: Sandbox) -> dict[str, Any]:
    resource, application = tenant.acs_resources[0], tenant.applications[0]
    return {
        "name": "azure",
        "kind": "azure_communication_services",
        **_dialled(tenant, sandbox, sandbox.acs_port),
        "login": {
            "method": "basic",
            "username": f"{resource.name}|{application.client_id}|{tenant.tenant_id}",
            "password": application.client_secret,
        },
    }
