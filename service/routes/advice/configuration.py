"""Postroom's own configuration for a way, as YAML that can be put into its file."""

from typing import Any

import yaml

from service.routes.advice.names import DOMAIN, Names
from service.routes.advice.options import Option
from service.routes.kinds import Cloud


def configuration(option: Option, names: Names) -> str | None:
    """Write the lines; None where Postroom has no such route."""
    route = _route(option, names)
    if route is None:
        return None
    document: dict[str, Any] = {}
    if names.domain:
        document["organization"] = {"accepted_domains": [names.domain]}
    if option is Option.SMTP_RELAY_IP:
        ips = [str(ip) for ip in names.ips] or ["<static public IPv4 address>"]
        document.setdefault("organization", {})["egress"] = {
            "static_ips": ips,
            "hosting": "own_static_ip",
        }
    if option is Option.CLIENT_SUBMISSION_OAUTH:
        document["entra"] = {
            "cloud": str(names.cloud),
            "tenant_id": names.tenant_id or "<directory (tenant) id>",
        }
    elif names.cloud is not Cloud.WORLDWIDE:
        document["entra"] = {"cloud": str(names.cloud)}
    document["routes"] = [route]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def _route(option: Option, names: Names) -> dict[str, Any] | None:
    mx = {"host": names.mx_host} if names.mx_host else {"mx_of": names.domain or DOMAIN}
    password = {"method": "basic", "password_file": "/run/secrets/mailbox-password"}
    oauth = {
        "method": "oauth",
        "client_id": names.client_id or "<application (client) id>",
        "client_secret_file": "/run/secrets/entra-client-secret",
    }
    match option:
        case Option.CLIENT_SUBMISSION_OAUTH | Option.CLIENT_SUBMISSION_BASIC:
            login = oauth if option is Option.CLIENT_SUBMISSION_OAUTH else password
            return {
                "name": "mailbox",
                "kind": "client_submission",
                "mailboxes": [{"address": names.address, "login": login}],
            }
        case Option.DIRECT_SEND:
            return {"name": "own-domain", "kind": "direct_send", **mx}
        case Option.SMTP_RELAY_CERTIFICATE:
            return {
                "name": "connector",
                "kind": "smtp_relay",
                **mx,
                "authenticate_by": "certificate",
                "client_certificate": {
                    "certificate_file": "/run/secrets/relay-fullchain.pem",
                    "private_key_file": "/run/secrets/relay-key.pem",
                },
            }
        case Option.SMTP_RELAY_IP:
            return {"name": "connector", "kind": "smtp_relay", **mx, "authenticate_by": "ip"}
        case Option.HIGH_VOLUME_EMAIL:
            return {
                "name": "high-volume",
                "kind": "high_volume_email",
                "accounts": [{"address": names.address, "login": password}],
            }
        case Option.AZURE_COMMUNICATION_SERVICES:
            resource = f"<resource>|<application id>|{names.tenant_id or '<tenant id>'}"
            return {
                "name": "azure",
                "kind": "azure_communication_services",
                "login": {
                    "method": "basic",
                    "username": resource,
                    "password_file": "/run/secrets/azure-client-secret",
                },
            }
        case Option.OWN_MAIL_SERVER | Option.SPECIALISED_PROVIDER:
            host = names.smarthost if option is Option.OWN_MAIL_SERVER else None
            return {"name": "smarthost", "kind": "smarthost", "host": host or "<name of the mail server>"}
        case Option.GRAPH:
            return None
