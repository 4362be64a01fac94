"""What holds whatever the values are: lint, schemas, names that fit together, pods that are locked down."""

import json
from functools import cache
from itertools import combinations

import kubernetes_validate  # type: ignore[import-untyped]  # it ships none
import pytest

from tests.chart.combinations import COMBINATIONS, SWITCHES, pairs, switched
from tests.chart.manifests import pods
from tests.tools.helm import CHART, Helm, Manifest, Values

#: The oldest Kubernetes that the chart takes, and the newest whose schemas there are.
OLDEST, NEWEST = "1.25", kubernetes_validate.latest_version()

#: Kinds that a cluster has only where somebody installed them: Kubernetes has no schema for these.
_FOREIGN = {
    "keda.sh/v1alpha1",
    "gateway.networking.k8s.io/v1",
    "monitoring.coreos.com/v1",
}

_ALL = {
    **COMBINATIONS,
    **{f"switches {number}": switched(names) for number, names in enumerate(pairs(list(SWITCHES)))},
}


def test_every_pair_of_switches_is_there() -> None:
    """Any two switches are on and off in all four ways somewhere among the sets."""
    sets = pairs(list(SWITCHES))

    for one, other in combinations(SWITCHES, 2):
        ways = {(one in names, other in names) for names in sets}
        assert len(ways) == 4, (one, other)


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_lints_without_a_warning(helm: Helm, values: Values) -> None:
    """`helm lint --strict` accepts the chart with every combination of values."""
    assert "0 chart(s) failed" in helm.lint(values)


@pytest.mark.parametrize("values", _ALL.values(), ids=_ALL)
def test_any_values_make_a_sound_release(both_helms: tuple[Helm, Helm], values: Values) -> None:
    """Helm 3 and 4 make the same objects, which the schemas take, fit together, and run locked down."""
    first, second = (sorted(helm.render(values), key=_place) for helm in both_helms)

    assert first == second
    assert len({_place(it) for it in first}) == len(first)
    assert all(len(it["metadata"]["name"]) <= 63 for it in first)
    for it in first:
        _take_by_schema(it)
    _fit_together(first)
    for pod in pods(first).values():
        _run_locked_down(pod)


def _place(it: Manifest) -> tuple[str, str]:
    return it["kind"], it["metadata"]["name"]


def _take_by_schema(it: Manifest) -> None:
    """Kubernetes, from the oldest to the newest, knows every field of the object."""
    if it["apiVersion"] in _FOREIGN:
        return
    _validate(json.dumps(it))


@cache  # Most objects are the same in many combinations.
def _validate(text: str) -> None:
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(json.loads(text), version, strict=True)


def _fit_together(objects: list[Manifest]) -> None:
    """Every name that an object refers to is rendered too, and early enough for a hook."""
    existing = {_place(it) for it in objects}
    hooks = {
        _place(it)
        for it in objects
        if "pre-install" in it["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    }
    for component, pod in pods(objects).items():
        account = pod["spec"]["serviceAccountName"]
        assert ("ServiceAccount", account) in existing or account in {"default", "mail"}
        assert ("ServiceAccount", account) not in hooks or component == "migrate"
        for volume in pod["spec"]["volumes"]:
            if "configMap" in volume:
                config = ("ConfigMap", volume["configMap"]["name"])
                assert config in existing
                assert (component == "migrate") == (config in hooks)
    for it in objects:
        target = it["spec"].get("scaleTargetRef") if "spec" in it else None
        if target is not None:
            assert (target.get("kind", "Deployment"), target["name"]) in existing


def _run_locked_down(pod: Manifest) -> None:
    """An ordinary user on a read-only root, without capabilities, token or service links, and bounded."""
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    # A Service named "postroom" would otherwise set POSTROOM_PORT, which looks like a setting.
    assert spec["enableServiceLinks"] is False
    # SIGTERM ends also what has no handler for it yet.
    assert spec["shareProcessNamespace"] is True
    mounted = set()
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]) == {"requests", "limits"}
        mounted |= {it["name"] for it in container.get("volumeMounts", ())}
    assert {it["name"] for it in spec["volumes"]} == mounted


def test_helm_is_what_it_says(helm: Helm) -> None:
    """The two Helms of these tests are of different major versions."""
    assert helm.version().startswith(f"v{helm.major}.")


def test_oldest_kubernetes_is_the_charts_own() -> None:
    """The schemas that are asked are those of the oldest version that the chart says it takes."""
    assert f'kubeVersion: ">={OLDEST}.0-0"' in (CHART / "Chart.yaml").read_text()
