"""Configuration and secrets: what gets into the ConfigMap, what never does, and what the service makes of it."""

import base64
import re
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

from service.settings import Settings
from service.settings.sources import SECRETS as SECRET_NAMES
from tests.chart.combinations import TENANT
from tests.chart.manifests import (
    ROUTE_SECRETS,
    SECRETS,
    configuration,
    container,
    matching,
    named_files,
    only,
    services,
)
from tests.tools.helm import Helm, Manifest, Refused, Values

CANARY = "c4n4ry-of-a-secret"


def _smarthost(**login: str) -> Manifest:
    shown = {"login": {"method": "basic", "username": "me", **login}} if login else {}
    return {"name": "inside", "kind": "smarthost", "host": "mail.contoso.com", **shown}


def _submission(**login: str) -> Manifest:
    own = {"method": "oauth", "client_id": "1", **login}
    return {
        "name": "noreply",
        "kind": "client_submission",
        "mailboxes": [{"address": "noreply@contoso.com", "login": own}],
    }


def test_configuration_arrives_as_given(helm: Helm) -> None:
    """The ConfigMap holds the given configuration unchanged, numbers included, and what the chart says."""
    given: Manifest = {
        "log_level": "debug",
        "dispatch": {"queue_limit": 47185920, "retry": {"factor": 1.5}},
        "dns": {"nameservers": ["10.0.0.53"], "timeout": 5},
        "checks": {"enabled": True},
        "entra": {"tenant_id": "012"},
    }

    objects = helm.render({"config": given})

    expected = {
        **given,
        "dispatch": {**given["dispatch"], "shutdown_grace": "630s"},
        "database_url_file": f"{SECRETS}/database_url",
        "redis_url_file": f"{SECRETS}/redis_url",
        "metrics": {"host": "0.0.0.0", "port": 8001},
    }
    assert configuration(objects) == expected
    assert configuration(objects, "post-postroom-migrate") == expected


def test_every_pod_finds_its_configuration(helm: Helm) -> None:
    """All three pods read the mounted file, by the variable that the command understands."""
    for pod in services(helm.render({})).values():
        only_one = container(pod)
        assert {"name": "POSTROOM_CONFIG", "value": "/etc/postroom/postroom.yaml"} in only_one["env"]
        assert {"name": "config", "mountPath": "/etc/postroom", "readOnly": True} in only_one["volumeMounts"]


def test_a_changed_configuration_starts_new_pods(helm: Helm) -> None:
    """The pods carry a checksum of their configuration, so a change rolls them."""
    checksums = [
        services(helm.render({"config": config}))[component]["metadata"]["annotations"]["checksum/config"]
        for config in ({}, {"log_level": "debug"})
        for component in ("api", "worker")
    ]

    assert checksums[0] == checksums[1]
    assert checksums[2] == checksums[3]
    assert checksums[0] != checksums[2]


def test_addresses_come_from_existing_secrets(helm: Helm) -> None:
    """PostgreSQL's and Redis' addresses are files from the named Secrets, in every pod."""
    for pod in services(helm.render(TENANT)).values():
        (projected,) = (it["projected"] for it in pod["spec"]["volumes"] if "projected" in it)
        assert projected == {
            "defaultMode": 0o440,
            "sources": [
                {"secret": {"name": "cluster-app", "items": [{"key": "uri", "path": "database_url"}]}},
                {"secret": {"name": "cache", "items": [{"key": "address", "path": "redis_url"}]}},
            ],
        }
        mounts = {it["name"]: it["mountPath"] for it in container(pod)["volumeMounts"]}
        assert mounts["secrets"] == SECRETS


def test_route_secrets_are_where_the_configuration_looks(helm: Helm) -> None:
    """Each file that the configuration names lies in a mounted Secret, in every pod."""
    objects = helm.render(TENANT)
    files = set(named_files(configuration(objects)))

    assert len(files) == 6
    for pod in services(objects).values():
        volumes = {it["name"]: it for it in pod["spec"]["volumes"]}
        mounted = {it["mountPath"]: volumes[it["name"]] for it in container(pod)["volumeMounts"]}
        assert {str(Path(file).parent) for file in files} <= set(mounted)
        assert mounted[f"{ROUTE_SECRETS}/noreply"]["secret"] == {
            "secretName": "postroom-noreply",
            "defaultMode": 0o440,
        }


def test_the_chart_makes_no_secret(helm: Helm) -> None:
    """Secrets are referred to and never rendered, so none can be read back from the release."""
    assert not [it for it in helm.render(TENANT) if it["kind"] == "Secret"]


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"database_url": CANARY}, "config.database_url is a secret"),
        ({"redis_url": CANARY}, "config.redis_url is a secret"),
        ({"routes": [_smarthost(password=CANARY)]}, "config.routes[0].login.password is a secret"),
        (
            {"routes": [_smarthost(), _submission(client_secret=CANARY)]},
            "config.routes[1].mailboxes[0].login.client_secret is a secret",
        ),
        ({"encryption_key": CANARY}, "config.encryption_key is a secret"),
        ({"entra": {"ca_file": f"https://me:{CANARY}@host/"}}, "config.entra.ca_file holds a password"),
        ({"route_order": [f"redis://:{CANARY}@host/"]}, "config.route_order[0] holds a password"),
        (
            {"webhooks": {"ca_file": f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}"}},
            "config.webhooks.ca_file holds a password or a private key",
        ),
    ],
)
def test_no_secret_gets_into_a_config_map(helm: Helm, config: Values, where: str) -> None:
    """A secret among the configuration stops the rendering; the message says where and does not repeat it."""
    with pytest.raises(Refused, match=re.escape(where)) as refused:
        helm.render({"config": config})

    assert CANARY not in str(refused.value)


#: Where each secret of the settings stands; a new one has to find its place here, and in the chart.
_PLACES: dict[str, Manifest] = {
    "database_url": {"database_url": CANARY},
    "redis_url": {"redis_url": CANARY},
    "encryption_key": {"encryption_key": CANARY},
    "previous_encryption_key": {"previous_encryption_key": CANARY},
    "client_secret": {"routes": [_submission(client_secret=CANARY)]},
    "password": {"routes": [_smarthost(password=CANARY)]},
}


@pytest.mark.parametrize("name", sorted(SECRET_NAMES))
def test_every_secret_of_the_settings_is_known(helm: Helm, name: str) -> None:
    """What the service reads as a secret, the chart refuses in the ConfigMap."""
    with pytest.raises(Refused, match=f"{name} is a secret"):
        helm.render({"config": _PLACES[name]})


def _loaded(objects: list[Manifest], root: Path, mounted: dict[str, bytes]) -> Settings:
    """Read the rendered configuration as a pod does, with `root` in the place of /."""
    for name, content in mounted.items():
        file = root / name.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    written = root / "postroom.yaml"
    text = only(objects, "ConfigMap", "post-postroom")["data"]["postroom.yaml"]
    written.write_text(text.replace("/run/", f"{root}/run/"))
    return Settings.load(written, {})


def test_the_service_accepts_what_the_chart_writes(helm: Helm, tmp_path: Path) -> None:
    """The service reads the rendered configuration with the mounted Secrets beside it, and finds its routes."""
    authority = trustme.CA()
    certificate = authority.issue_cert("mail.contoso.com")
    mounted = {
        f"{SECRETS}/database_url": b"postgresql://postroom:secret@db/postroom",
        f"{SECRETS}/redis_url": b"redis://cache:6379/0",
        f"{ROUTE_SECRETS}/noreply/client_secret": b"secret",
        f"{ROUTE_SECRETS}/connector/tls.crt": b"".join(it.bytes() for it in certificate.cert_chain_pems),
        f"{ROUTE_SECRETS}/connector/tls.key": certificate.private_key_pem.bytes(),
        f"{ROUTE_SECRETS}/connector/ca.crt": authority.cert_pem.bytes(),
    }

    settings = _loaded(helm.render(TENANT), tmp_path, mounted)

    assert settings.dispatch.queue_limit == 47185920
    assert settings.dispatch.shutdown_grace == timedelta(seconds=90)
    assert [route.name for route in settings.routes] == ["noreply", "connector"]


def test_the_charts_own_settings_are_not_overwritten(helm: Helm) -> None:
    """Who writes the addresses' files by hand is told which value to use instead of being ignored."""
    with pytest.raises(Refused, match=r"use the value database\.existingSecret"):
        helm.render({"config": {"database_url_file": "/elsewhere"}})


@pytest.mark.parametrize(
    ("values", "instead"),
    [
        ({"api": {"trustedProxies": ["10.0.0.0/8"]}}, "api.trustedProxies"),
        ({"webhooks": {"allowPrivate": True}}, "webhooks.allowPrivate"),
        ({"webhooks": {"allowedNetworks": ["10.0.0.0/8"]}}, "webhooks.allowedNetworks"),
        ({"sandbox": {"enabled": True}}, "sandbox.enabled"),
    ],
)
def test_what_is_said_twice_is_refused(helm: Helm, values: Values, instead: str) -> None:
    """A value of the chart and the same setting in the configuration never overrule each other silently."""
    config = {
        "api": {"trusted_proxies": ["192.0.2.0/24"]},
        "webhooks": {"allow_private": False, "allowed_networks": []},
        "sandbox": {"enabled": False},
    }

    with pytest.raises(Refused, match=re.escape(f"use the value {instead}")):
        helm.render({"config": config, **values})


def test_values_become_settings(helm: Helm, tmp_path: Path) -> None:
    """The service understands what the chart's own values make of its configuration."""
    seal = base64.b64encode(bytes(32))
    values: Values = {
        "encryptionKey": {"existingSecret": "seal", "key": "key"},
        "api": {"trustedProxies": ["10.0.0.0/8"]},
        "webhooks": {
            "allowHttp": True,
            "allowPrivate": True,
            "allowedNetworks": ["10.20.0.0/16"],
            "ca": {"existingSecret": "authority"},
        },
        "sandbox": {"enabled": True},
    }
    mounted = {
        "database_url": b"postgresql://postroom:secret@db/postroom",
        "redis_url": b"redis://cache:6379/0",
        "encryption_key": seal,
        "webhooks_ca": trustme.CA().cert_pem.bytes(),
    }

    objects = helm.render(values)

    settings = _loaded(objects, tmp_path, {f"{SECRETS}/{name}": it for name, it in mounted.items()})
    assert settings.sealing_key() == bytes(32)
    assert [str(it) for it in settings.api.trusted_proxies] == ["10.0.0.0/8"]
    assert settings.webhooks.allow_http
    assert settings.webhooks.allow_private
    assert [str(it) for it in settings.webhooks.allowed_networks] == ["10.20.0.0/16"]
    assert settings.webhooks.ca_file is not None
    sandbox = settings.route_book().sandbox
    assert sandbox is not None
    service = only(objects, "Service", sandbox.peer.host)["spec"]
    assert sandbox.peer.port in {it["port"] for it in service["ports"]}
    assert matching(service["selector"], objects) == {"sandbox"}
    for pod in services(objects).values():
        (projected,) = (it["projected"] for it in pod["spec"]["volumes"] if "projected" in it)
        files = {item["path"] for source in projected["sources"] for item in source["secret"]["items"]}
        assert files == set(mounted)
