"""Values: what is refused, what is described, and what a person reads after the installation."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from service.settings import Settings
from tests.chart.combinations import TENANT
from tests.tools import chart_docs
from tests.tools.cache import REPOSITORY
from tests.tools.helm import CHART, Helm, Manifest, Refused, Values


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
        ({"api": {"trustedProxies": ["everybody"]}}, "trustedProxies"),
        ({"api": {"resources": {"limit": {}}}}, "limit"),
        ({"ingress": {"enabled": True}}, "hosts"),
        ({"httpRoute": {"enabled": True}}, "parentRefs"),
        ({"networkPolicy": {"apiFrom": [{"pods": {}}]}}, "pods"),
        ({"worker": {"autoscaling": {"prometheus": {"serverAddress": "prometheus"}}}}, "serverAddress"),
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
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: Manifest, rules: Manifest, at: str) -> None:
        assert set(values) == set(rules["properties"]) - {"global"}, at
        for name, rule in rules["properties"].items():
            inner = schema["definitions"].get(rule.get("$ref", "").rpartition("/")[2], rule)
            # The configuration's own defaults are the service's.
            if inner.get("additionalProperties") is False and name not in {"config", "resources"}:
                compare(values[name], inner, f"{at}.{name}")

    compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "values")


def test_every_setting_is_described() -> None:
    """The README has a line for every setting that `postroom config show` lists, with what it means."""
    lines = [line for line in chart_docs.readme().splitlines() if line.startswith("| `")]
    said = {line.split("`")[1]: line.rpartition(" | ")[2] for line in lines}
    settings = Settings.load(
        None, {"POSTROOM_DATABASE_URL": "postgresql://a@b/c", "POSTROOM_REDIS_URL": "redis://a"}
    )

    for setting in settings.effective():
        assert any(re.match(rf"{re.escape(setting.name)}\b", name) for name in said), setting.name
    assert said["dispatch.poll_interval"] == "How often the sweep looks for what no bell announced. |"
    assert said["entra.cloud"].endswith("`worldwide`, `gcc_high`, `dod`, `china`. |")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"dispach": {}}, "dispach"),
        ({"dispatch": {"leese": "30s"}}, "leese"),
        ({"dispatch": {"lease": "soon"}}, "lease"),
        ({"dispatch": {"queue_limit": 0}}, "queue_limit"),
        ({"log_level": "loud"}, "log_level"),
        ({"routes": [{"name": "a", "kind": "smarthost", "hots": "x"}]}, "hots"),
        ({"routes": [{"name": "a", "kind": "carrier_pigeon"}]}, "kind"),
        ({"routes": [{"name": "a", "kind": "client_submission"}]}, "mailboxes"),
    ],
)
def test_wrong_configuration_is_refused(helm: Helm, config: Values, named: str) -> None:
    """What the service would refuse at its start, Helm refuses before anything is installed, and names it."""
    with pytest.raises(Refused, match=named):
        helm.render({"config": config})


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
        "helm -n default test post",
        "postroom check",
        "postroom keys create",
        "port-forward",
        "curl",
    ]
    places = [notes.index(step) for step in steps]
    assert all(first < second for first, second in pairwise(places))
    assert "deploy/post-postroom-api" in notes
    assert "No route is configured yet" not in helm.notes(TENANT)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"migration": {"enabled": False}}, "postroom migrate"),
        ({"worker": {"replicas": 0}}, "There are no workers"),
        ({"config": {"dispatch": {"shutdown_grace": "60s"}}}, "shorter than the longest wait"),
        ({"sandbox": {"enabled": True}}, "bounced@contoso.com"),
        ({}, "No encryptionKey"),
    ],
)
def test_notes_tell_what_is_missing(both_helms: tuple[Helm, Helm], values: Values, told: str) -> None:
    """What an operator might not have meant is said after the installation, and only then."""
    _, helm = both_helms

    assert told in helm.notes(values)
    assert told not in helm.notes({"encryptionKey": {"existingSecret": "seal"}})


def test_values_of_the_documentation_work(helm: Helm) -> None:
    """Each block of values in the page about Kubernetes renders, and so do all of them together."""
    page = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.+?)```", page, re.DOTALL)]

    together: Manifest = {}
    for block in blocks:
        helm.render(block)
        together |= block

    assert len(blocks) == 2
    assert helm.render(together)


def test_settings_of_the_documentation_exist() -> None:
    """Every value that the page about Kubernetes sets by `--set` is one of the chart's."""
    page = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    known = yaml.safe_load((CHART / "values.yaml").read_text())

    named = set(re.findall(r"--set '?([\w.]+)[=\[]", page))

    assert len(named) > 10
    for name in named - {"config.routes", "monitoring.serviceMonitor.labels.release"}:
        inner = known
        for part in name.split("."):
            inner = inner[part]
