"""The Helm chart, linted and rendered by real Helm 3 and Helm 4 with many combinations of values."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import trustme
import yaml

from service.settings import Settings
from service.settings.sources import SECRETS as SECRET_NAMES
from tests.tools.cache import REPOSITORY, Unobtainable, skip_or_fail
from tests.tools.helm import CHART, Helm, Manifest, Refused, Values, obtain

CANARY = "c4n4ry-of-a-secret"
SECRETS = "/run/secrets/postroom"
ROUTE_SECRETS = "/run/secrets/routes"

#: A tenant as a person would configure it: OAuth by secret, a certificate relay, numbers and times.
TENANT: Values = {
    "database": {"existingSecret": "cluster-app", "key": "uri"},
    "redis": {"existingSecret": "cache", "key": "address"},
    "routeSecrets": [
        {"name": "noreply", "existingSecret": "postroom-noreply"},
        {"name": "connector", "existingSecret": "postroom-connector"},
    ],
    "config": {
        "organization": {"accepted_domains": ["contoso.com"], "licences": 250},
        "entra": {"tenant_id": "00000000-0000-0000-0000-000000000001"},
        "dispatch": {"shutdown_grace": "90s", "queue_limit": 47185920},
        "route_order": ["noreply", "connector"],
        "routes": [
            {
                "name": "noreply",
                "kind": "client_submission",
                "mailboxes": [
                    {
                        "address": "noreply@contoso.com",
                        "login": {
                            "method": "oauth",
                            "client_id": "00000000-0000-0000-0000-000000000002",
                            "client_secret_file": f"{ROUTE_SECRETS}/noreply/client_secret",
                        },
                    }
                ],
            },
            {
                "name": "connector",
                "kind": "smtp_relay",
                "host": "contoso-com.mail.protection.outlook.com",
                "authenticate_by": "certificate",
                "ca_file": f"{ROUTE_SECRETS}/connector/ca.crt",
                "client_certificate": {
                    "certificate_file": f"{ROUTE_SECRETS}/connector/tls.crt",
                    "private_key_file": f"{ROUTE_SECRETS}/connector/tls.key",
                },
            },
        ],
    },
}

COMBINATIONS: dict[str, Values] = {
    "defaults": {},
    "tenant": TENANT,
    "no migration": {"migration": {"enabled": False}},
    "somebody else's service account": {"serviceAccount": {"create": False, "name": "mail"}},
    "no service account": {"serviceAccount": {"create": False}},
    "cloud identity": {"serviceAccount": {"annotations": {"azure.workload.identity/client-id": "1"}}},
    "image by digest": {"image": {"repository": "mirror/postroom", "digest": f"sha256:{'a' * 64}"}},
    "image by tag": {"image": {"repository": "mirror/postroom", "tag": "main"}},
    "a load balancer": {
        "api": {"service": {"type": "LoadBalancer", "port": 8080, "annotations": {"a": "b"}}}
    },
    "IPv6": {"api": {"host": "::"}},
    "OpenShift": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}},
    "scheduling": {
        "priorityClassName": "mail",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "mail", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {},
            }
        ],
    },
    "labels and variables": {
        "podLabels": {"team": "mail"},
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        "imagePullSecrets": [{"name": "registry"}],
        "extraEnv": [{"name": "NO_PROXY", "value": "localhost"}],
    },
    "long names": {"fullnameOverride": "a-name-that-is-far-too-long-for-any-object-of-kubernetes-at-all"},
}


@pytest.fixture(scope="session", params=[3, 4], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest) -> Helm:
    """One of the two Helms that are in use."""
    return _obtain(request.param)


@pytest.fixture(scope="session")
def both_helms() -> tuple[Helm, Helm]:
    """Helm 3 and Helm 4, in this order."""
    return _obtain(3), _obtain(4)


def _obtain(major: int) -> Helm:
    try:
        return obtain(major)
    except Unobtainable as why:
        skip_or_fail(str(why))


def _only(objects: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (it for it in objects if it["kind"] == kind and it["metadata"]["name"] == name)
    return found


def _workloads(objects: list[Manifest]) -> dict[str, Manifest]:
    """Return the pod templates by their component: api, worker, migrate."""
    return {
        it["metadata"]["labels"]["app.kubernetes.io/component"]: it["spec"]["template"]
        for it in objects
        if it["kind"] in {"Deployment", "Job"}
    }


def _container(pod: Manifest) -> Manifest:
    (container,) = pod["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def _configuration(objects: list[Manifest], name: str = "post-postroom") -> Manifest:
    loaded = yaml.safe_load(_only(objects, "ConfigMap", name)["data"]["postroom.yaml"])
    assert isinstance(loaded, dict)
    return loaded


def _files(value: object) -> Iterator[str]:
    """Find every path that a configuration names in a field `…_file`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name.endswith("_file"):
                yield inner
            yield from _files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _files(inner)


# --- every combination -----------------------------------------------------------------------------


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_lints_without_a_warning(helm: Helm, values: Values) -> None:
    """`helm lint --strict` accepts the chart with every combination of values."""
    assert "0 chart(s) failed" in helm.lint(values)


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_objects_fit_together(helm: Helm, values: Values) -> None:
    """Every name that an object refers to is rendered too, and early enough for a hook."""
    objects = helm.render(values)

    existing = {(it["kind"], it["metadata"]["name"]) for it in objects}
    hooks = {
        it["metadata"]["name"] for it in objects if "helm.sh/hook" in it["metadata"].get("annotations", {})
    }
    for component, pod in _workloads(objects).items():
        (config,) = (it["configMap"]["name"] for it in pod["spec"]["volumes"] if "configMap" in it)
        account = pod["spec"]["serviceAccountName"]
        assert ("ConfigMap", config) in existing
        assert ("ServiceAccount", account) in existing or account in {"default", "mail"}
        assert (component == "migrate") == (config in hooks)
        assert account not in hooks or component == "migrate"


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_mounts_have_volumes_and_names_fit(helm: Helm, values: Values) -> None:
    """Each mount has its volume, each volume its mount, and no name is longer than Kubernetes allows."""
    objects = helm.render(values)

    assert all(len(it["metadata"]["name"]) <= 63 for it in objects)
    for pod in _workloads(objects).values():
        mounts = {it["name"] for it in _container(pod)["volumeMounts"]}
        assert {it["name"] for it in pod["spec"]["volumes"]} == mounts


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_pods_are_locked_down(helm: Helm, values: Values) -> None:
    """Every pod runs as an ordinary user on a read-only root, without capabilities, token or service links."""
    for pod in _workloads(helm.render(values)).values():
        spec, security = pod["spec"], _container(pod)["securityContext"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert spec["automountServiceAccountToken"] is False
        # A Service named "postroom" would otherwise set POSTROOM_PORT, which looks like a setting.
        assert spec["enableServiceLinks"] is False


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_both_helms_render_the_same(both_helms: tuple[Helm, Helm], values: Values) -> None:
    """Helm 3 and Helm 4 make the same objects, whatever their order."""
    first, second = (
        sorted(helm.render(values), key=lambda it: (it["kind"], it["metadata"]["name"]))
        for helm in both_helms
    )

    assert first == second


def test_helm_is_what_it_says(helm: Helm) -> None:
    """The two Helms of these tests are of different major versions."""
    assert helm.version().startswith(f"v{helm.major}.")


# --- what runs -------------------------------------------------------------------------------------


def test_three_pods_run_three_commands(helm: Helm) -> None:
    """The image's entry point gets `api`, `worker` and `migrate`; the API listens where its port says."""
    pods = _workloads(helm.render({}))

    arguments = {component: _container(pod)["args"] for component, pod in pods.items()}
    assert arguments == {
        "api": ["api", "--host", "0.0.0.0", "--port", "8000"],
        "worker": ["worker"],
        "migrate": ["migrate"],
    }
    assert all("command" not in _container(pod) for pod in pods.values())
    assert _container(pods["api"])["ports"] == [{"name": "http", "containerPort": 8000}]


def test_image_is_that_of_the_chart(helm: Helm) -> None:
    """Unless told otherwise every pod runs the version of this checkout; a digest goes before a tag."""
    project = (REPOSITORY / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    digest = f"sha256:{'b' * 64}"

    plain = _workloads(helm.render({}))
    pinned = _workloads(helm.render({"image": {"repository": "here/it", "tag": "x", "digest": digest}}))

    assert {_container(pod)["image"] for pod in plain.values()} == {f"postroom:{version[1]}"}
    assert {_container(pod)["image"] for pod in pinned.values()} == {f"here/it@{digest}"}


def test_probes_ask_the_api(helm: Helm) -> None:
    """Liveness asks /livez, which needs no database; readiness asks /readyz; a slow start is allowed for."""
    api = _container(_workloads(helm.render({}))["api"])

    asked = {name: api[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {"path": "/livez", "port": "http"},
        "liveness": {"path": "/livez", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    # /readyz answers within two seconds even when PostgreSQL is away.
    assert api["readinessProbe"]["timeoutSeconds"] > 2


def test_service_reaches_the_api_alone(helm: Helm) -> None:
    """The Service's selector matches the pods of the API and no others."""
    objects = helm.render({"api": {"service": {"port": 8080}}})
    service = _only(objects, "Service", "post-postroom-api")["spec"]

    matched = {
        component
        for component, pod in _workloads(objects).items()
        if service["selector"].items() <= pod["metadata"]["labels"].items()
    }

    assert matched == {"api"}
    assert service["ports"] == [{"name": "http", "port": 8080, "targetPort": "http", "appProtocol": "http"}]


def test_deployments_select_their_own_pods(helm: Helm) -> None:
    """A Deployment's selector matches its own pods only, in a release beside another one too."""
    objects = helm.render({}, release="one") + helm.render({}, release="two")
    deployments = [it for it in objects if it["kind"] == "Deployment"]

    for deployment in deployments:
        selector = deployment["spec"]["selector"]["matchLabels"]
        matched = [
            it
            for it in deployments
            if selector.items() <= it["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert matched == [deployment]


def test_migration_runs_before_everything(helm: Helm) -> None:
    """The migration is a hook before install and upgrade, and what it needs comes before it."""
    objects = helm.render({})
    own = [it["metadata"] for it in objects if it["metadata"]["name"] == "post-postroom-migrate"]
    annotations = [
        it["annotations"] for it in sorted(own, key=lambda it: int(it["annotations"]["helm.sh/hook-weight"]))
    ]

    assert {it["helm.sh/hook"] for it in annotations} == {"pre-install,pre-upgrade"}
    weights = [int(it["helm.sh/hook-weight"]) for it in annotations]
    assert weights == [-10, -10, -5]
    job = _only(objects, "Job", "post-postroom-migrate")
    assert job["metadata"]["annotations"]["helm.sh/hook-weight"] == "-5"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_migration_can_be_left_to_others(helm: Helm) -> None:
    """Switched off, no trace of the migration is rendered."""
    objects = helm.render({"migration": {"enabled": False}})

    assert set(_workloads(objects)) == {"api", "worker"}
    assert not [it for it in objects if "migrate" in it["metadata"]["name"]]


@pytest.mark.parametrize(
    ("grace", "seconds"), [("60s", 75), ("10m", 615), ("1500ms", 17), (90, 105), ("2h", 7215), (None, 75)]
)
def test_workers_may_finish(helm: Helm, grace: object, seconds: int) -> None:
    """A worker gets dispatch.shutdown_grace and fifteen seconds more before Kubernetes kills it."""
    dispatch = {} if grace is None else {"shutdown_grace": grace}

    pods = _workloads(helm.render({"config": {"dispatch": dispatch}}))

    assert pods["worker"]["spec"]["terminationGracePeriodSeconds"] == seconds


def test_a_wrong_grace_is_named(helm: Helm) -> None:
    """A time that is none stops the rendering with the name of the setting."""
    with pytest.raises(Refused, match=r"config\.dispatch\.shutdown_grace must be a time"):
        helm.render({"config": {"dispatch": {"shutdown_grace": "soon"}}})


# --- configuration and secrets ---------------------------------------------------------------------


def test_configuration_arrives_as_given(helm: Helm) -> None:
    """The ConfigMap holds the given configuration unchanged, numbers included, and the chart's two addresses."""
    odd: Values = {"config": {"a": "yes", "b": 47185920, "c": [1.5, True, "ä\n x: y"], "d": {"e": "012"}}}

    objects = helm.render(odd)

    expected = {
        **dict(odd["config"].items() if isinstance(odd["config"], dict) else ()),
        "database_url_file": f"{SECRETS}/database_url",
        "redis_url_file": f"{SECRETS}/redis_url",
    }
    assert _configuration(objects) == expected
    assert _configuration(objects, "post-postroom-migrate") == expected


def test_every_pod_finds_its_configuration(helm: Helm) -> None:
    """All three pods read the mounted file, by the variable that the command understands."""
    for pod in _workloads(helm.render({})).values():
        container = _container(pod)
        assert {"name": "POSTROOM_CONFIG", "value": "/etc/postroom/postroom.yaml"} in container["env"]
        assert {"name": "config", "mountPath": "/etc/postroom", "readOnly": True} in container["volumeMounts"]


def test_a_changed_configuration_starts_new_pods(helm: Helm) -> None:
    """The pods carry a checksum of their configuration, so a change rolls them."""
    checksums = [
        _workloads(helm.render({"config": config}))[component]["metadata"]["annotations"]["checksum/config"]
        for config in ({}, {"log_level": "debug"})
        for component in ("api", "worker")
    ]

    assert checksums[0] == checksums[1]
    assert checksums[2] == checksums[3]
    assert checksums[0] != checksums[2]


def test_addresses_come_from_existing_secrets(helm: Helm) -> None:
    """PostgreSQL's and Redis' addresses are files from the named Secrets, in every pod."""
    for pod in _workloads(helm.render(TENANT)).values():
        (projected,) = (it["projected"] for it in pod["spec"]["volumes"] if "projected" in it)
        assert projected == {
            "defaultMode": 0o440,
            "sources": [
                {"secret": {"name": "cluster-app", "items": [{"key": "uri", "path": "database_url"}]}},
                {"secret": {"name": "cache", "items": [{"key": "address", "path": "redis_url"}]}},
            ],
        }
        mounts = {it["name"]: it["mountPath"] for it in _container(pod)["volumeMounts"]}
        assert mounts["secrets"] == SECRETS


def test_route_secrets_are_where_the_configuration_looks(helm: Helm) -> None:
    """Each file that the configuration names lies in a mounted Secret, in every pod."""
    objects = helm.render(TENANT)
    files = set(_files(_configuration(objects)))

    assert len(files) == 6
    for pod in _workloads(objects).values():
        volumes = {it["name"]: it for it in pod["spec"]["volumes"]}
        mounted = {it["mountPath"]: volumes[it["name"]] for it in _container(pod)["volumeMounts"]}
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
        ({"routes": [{"login": {"password": CANARY}}]}, "config.routes[0].login.password is a secret"),
        (
            {"routes": [{}, {"mailboxes": [{"login": {"client_secret": CANARY}}]}]},
            "config.routes[1].mailboxes[0].login.client_secret is a secret",
        ),
        ({"a": {"private_key": CANARY}}, "config.a.private_key is a secret"),
        ({"a": {"Token": CANARY}}, "config.a.Token is a secret"),
        ({"a": {"where": f"https://me:{CANARY}@host/"}}, "config.a.where holds a password"),
        ({"a": [f"redis://:{CANARY}@host/"]}, "config.a[0] holds a password"),
        ({"a": f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}"}, "config.a holds a password or a private key"),
    ],
)
def test_no_secret_gets_into_a_config_map(helm: Helm, config: Values, where: str) -> None:
    """A secret among the configuration stops the rendering; the message says where and does not repeat it."""
    with pytest.raises(Refused, match=re.escape(where)) as refused:
        helm.render({"config": config})

    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("name", sorted(SECRET_NAMES))
def test_every_secret_of_the_settings_is_known(helm: Helm, name: str) -> None:
    """What the service reads as a secret, the chart refuses in the ConfigMap, wherever it stands."""
    with pytest.raises(Refused, match=f"{name} is a secret"):
        helm.render({"config": {"somewhere": [{"deep": {name: CANARY}}]}})


def test_the_service_accepts_what_the_chart_writes(helm: Helm, tmp_path: Path) -> None:
    """The service reads the rendered configuration with the mounted Secrets beside it, and finds its routes."""
    authority = trustme.CA()
    certificate = authority.issue_cert("mail.contoso.com")
    text = _only(helm.render(TENANT), "ConfigMap", "post-postroom")["data"]["postroom.yaml"]
    mounted = {
        f"{SECRETS}/database_url": b"postgresql://postroom:secret@db/postroom",
        f"{SECRETS}/redis_url": b"redis://cache:6379/0",
        f"{ROUTE_SECRETS}/noreply/client_secret": b"secret",
        f"{ROUTE_SECRETS}/connector/tls.crt": b"".join(it.bytes() for it in certificate.cert_chain_pems),
        f"{ROUTE_SECRETS}/connector/tls.key": certificate.private_key_pem.bytes(),
        f"{ROUTE_SECRETS}/connector/ca.crt": authority.cert_pem.bytes(),
    }
    for name, content in mounted.items():
        file = tmp_path / name.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    configuration = tmp_path / "postroom.yaml"
    configuration.write_text(text.replace("/run/", f"{tmp_path}/run/"))

    settings = Settings.load(configuration, {})

    assert settings.dispatch.queue_limit == 47185920
    assert settings.dispatch.shutdown_grace == timedelta(seconds=90)
    assert [route.name for route in settings.routes] == ["noreply", "connector"]


def test_the_charts_own_settings_are_not_overwritten(helm: Helm) -> None:
    """Who writes the addresses' files by hand is told which value to use instead of being ignored."""
    with pytest.raises(Refused, match=r"name the Secret in database\.existingSecret"):
        helm.render({"config": {"database_url_file": "/elsewhere"}})


# --- values and files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"api": {"replicas": "two"}}, "replicas"),
        ({"api": {"service": {"port": 70000}}}, "port"),
        ({"api": {"service": {"type": "Magic"}}}, "type"),
        ({"worker": {"graceMarginSeconds": 0}}, "graceMarginSeconds"),
        ({"migration": {"enabled": "no"}}, "enabled"),
        ({"config": ["a", "list"]}, "config"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"database": {"existingSecret": ""}}, "existingSecret"),
        ({"routeSecrets": [{"name": "Not a folder", "existingSecret": "x"}]}, "name"),
        ({"routeSecrets": [{"name": "x"}]}, "existingSecret"),
        ({"podLabels": {"a": 1}}, "podLabels"),
        ({"wroker": {"replicas": 3}}, "wroker"),
        ({"api": {"replcas": 3}}, "replcas"),
    ],
)
def test_wrong_values_are_refused(helm: Helm, values: Values, named: str) -> None:
    """The schema refuses a wrong type, a wrong value and a misspelt name, and says which."""
    with pytest.raises(Refused, match=named):
        helm.render(values)


def test_schema_and_defaults_name_the_same_values() -> None:
    """Every default has a rule and every rule a default, at each level that the schema closes."""

    def compare(values: Manifest, schema: Manifest, at: str) -> None:
        assert set(values) == set(schema["properties"]) - {"global"}, at
        for name, inner in schema["properties"].items():
            if inner.get("additionalProperties") is False:
                compare(values[name], inner, f"{at}.{name}")

    compare(
        yaml.safe_load((CHART / "values.yaml").read_text()),
        json.loads((CHART / "values.schema.json").read_text()),
        "values",
    )


def test_plain_yaml_is_tidy() -> None:
    """Yamllint finds nothing in the chart's YAML files that are no templates."""
    rules = "{extends: default, rules: {document-start: disable, line-length: {max: 110}}}"

    done = subprocess.run(
        [
            Path(sys.prefix) / "bin" / "yamllint",
            "--strict",
            "-d",
            rules,
            CHART / "Chart.yaml",
            CHART / "values.yaml",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == ""
    assert done.returncode == 0


def test_notes_say_what_to_do_next(both_helms: tuple[Helm, Helm]) -> None:
    """After the installation a person reads commands that work, in order, with the release's own names."""
    _, helm = both_helms
    notes = helm.notes({})

    steps = [
        "No route is configured yet",
        "postroom check",
        "postroom keys create",
        "port-forward",
        "curl",
    ]
    places = [notes.index(step) for step in steps]
    assert all(first < second for first, second in pairwise(places))
    assert "deploy/post-postroom-api" in notes
    assert "No route is configured yet" not in helm.notes(TENANT)
