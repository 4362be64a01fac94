"""What runs: the pods, their commands, probes and times, and the hook that comes before them."""

import re

import pytest

from tests.chart.manifests import configuration, container, matching, only, services
from tests.tools.cache import REPOSITORY
from tests.tools.helm import Helm, Refused


def test_three_pods_run_three_commands(helm: Helm) -> None:
    """The image's entry point gets `api`, `worker` and `migrate`; the API listens where its port says."""
    pods = services(helm.render({}))

    arguments = {component: container(pod)["args"] for component, pod in pods.items()}
    assert arguments == {
        "api": ["api", "--host", "0.0.0.0", "--port", "8000"],
        "worker": ["worker"],
        "migrate": ["migrate"],
    }
    assert all("command" not in container(pod) for pod in pods.values())
    ports = {
        component: {it["name"]: it["containerPort"] for it in container(pod).get("ports", ())}
        for component, pod in pods.items()
    }
    assert ports == {"api": {"http": 8000, "metrics": 8001}, "worker": {"metrics": 8001}, "migrate": {}}


def test_image_is_that_of_the_chart(helm: Helm) -> None:
    """Unless told otherwise every pod runs the version of this checkout; a digest goes before a tag."""
    project = (REPOSITORY / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    digest = f"sha256:{'b' * 64}"

    plain = services(helm.render({}))
    pinned = services(helm.render({"image": {"repository": "here/it", "tag": "x", "digest": digest}}))

    assert {container(pod)["image"] for pod in plain.values()} == {f"postroom:{version[1]}"}
    assert {container(pod)["image"] for pod in pinned.values()} == {f"here/it@{digest}"}


def test_probes_ask_the_api(helm: Helm) -> None:
    """Liveness asks /livez, which needs no database; readiness asks /readyz; a slow start is allowed for."""
    api = container(services(helm.render({}))["api"])

    asked = {name: api[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {"path": "/livez", "port": "http"},
        "liveness": {"path": "/livez", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    # /readyz answers within two seconds even when PostgreSQL is away.
    assert api["readinessProbe"]["timeoutSeconds"] > 2


def test_probes_ask_the_worker(helm: Helm) -> None:
    """A worker is asked on the port that the configuration gives it, which is that of its figures."""
    objects = helm.render({})
    worker = container(services(objects)["worker"])

    asked = {name: worker[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {it["port"] for it in asked.values()} == {"metrics"}
    assert [it["path"] for it in asked.values()] == ["/livez", "/livez", "/readyz"]
    assert configuration(objects)["metrics"]["port"] == worker["ports"][0]["containerPort"]


def test_service_reaches_the_api_alone(helm: Helm) -> None:
    """The Service's selector matches the pods of the API and no others."""
    objects = helm.render({"api": {"service": {"port": 8080}}})
    service = only(objects, "Service", "post-postroom-api")["spec"]

    assert matching(service["selector"], objects) == {"api"}
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
    # Nothing is left of it afterwards: what hooks make, `helm uninstall` does not take away.
    assert {it["helm.sh/hook-delete-policy"] for it in annotations} == {"before-hook-creation,hook-succeeded"}
    weights = [int(it["helm.sh/hook-weight"]) for it in annotations]
    assert weights == [-10, -10, -5]
    job = only(objects, "Job", "post-postroom-migrate")
    assert job["metadata"]["annotations"]["helm.sh/hook-weight"] == "-5"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_migration_can_be_left_to_others(helm: Helm) -> None:
    """Switched off, no trace of the migration is rendered."""
    objects = helm.render({"migration": {"enabled": False}})

    assert set(services(objects)) == {"api", "worker"}
    assert not [it for it in objects if "migrate" in it["metadata"]["name"]]


@pytest.mark.parametrize(
    ("grace", "seconds"), [("60s", 60), ("10m", 600), ("1500ms", 2), (90, 90), ("2h", 7200), (None, 630)]
)
def test_pods_may_finish(helm: Helm, grace: object, seconds: int) -> None:
    """Before Kubernetes kills a pod it has dispatch.shutdown_grace, and time before and after."""
    dispatch = {} if grace is None else {"shutdown_grace": grace}

    pods = services(helm.render({"config": {"dispatch": dispatch}}))

    # Calls of webhooks may take their 15 seconds after the last message, and verdicts are written down.
    assert pods["worker"]["spec"]["terminationGracePeriodSeconds"] == seconds + 15 + 15
    # The load balancers notice first.
    assert pods["api"]["spec"]["terminationGracePeriodSeconds"] == 5 + seconds + 10


def test_the_dot_is_waited_for(helm: Helm) -> None:
    """Unless told otherwise a worker that is stopped waits longer than any route does for the reply to its dot."""
    slow = {"name": "slow", "kind": "smarthost", "host": "mail.contoso.com", "timeouts": {"dot": "20m"}}
    quick = {**slow, "name": "quick", "timeouts": {"dot": "1m"}}

    graces = [
        configuration(helm.render({"config": {"routes": routes}}))["dispatch"]["shutdown_grace"]
        for routes in ([], [quick], [quick, slow])
    ]

    assert graces == ["630s", "630s", "1230s"]


def test_webhooks_are_waited_for(helm: Helm) -> None:
    """A longer time for webhooks makes the worker's last minute longer."""
    config = {"webhooks": {"timeout": "60s"}, "dispatch": {"shutdown_grace": "60s"}}

    pods = services(helm.render({"config": config}))

    assert pods["worker"]["spec"]["terminationGracePeriodSeconds"] == 60 + 60 + 15


def test_a_wrong_grace_is_named(helm: Helm) -> None:
    """A time that is none stops the rendering with the name of the setting."""
    with pytest.raises(Refused, match="shutdown_grace"):
        helm.render({"config": {"dispatch": {"shutdown_grace": "soon"}}})
