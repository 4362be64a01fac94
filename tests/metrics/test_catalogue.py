"""The metrics, their documents, the dashboard and the alerts: each names what there is, and nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.routes.diagnoses import CATALOGUE
from service.telemetry import figures
from service.telemetry.families import Counter, Family, Gauge, Histogram, page
from tests.tools import promtool
from tests.tools.cache import REPOSITORY

DASHBOARD = REPOSITORY / "helm/files/postroom-dashboard.json"
ALERTS = REPOSITORY / "helm/files/alerts.yaml"

#: What is labelled by more than the catalogue says: Prometheus itself, and histograms.
EVERYWHERE = {"job", "instance", "le"}

#: Of the client library.
LIBRARY = {"process_resident_memory_bytes", "process_cpu_seconds_total"}

FAMILIES = {name: family for name, family in vars(figures).items() if isinstance(family, Family)}
SAMPLES: dict[str, Family] = {
    family.name + suffix: family
    for family in FAMILIES.values()
    for suffix in (("_bucket", "_sum", "_count") if isinstance(family, Histogram) else ("",))
}


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression, with where it stands."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_name_follows_the_conventions(family: Family) -> None:
    """A counter ends in _total, nothing else does; units are the base units; no label says whose mail it is."""
    assert re.fullmatch(r"postroom_[a-z]+(_[a-z]+)*", family.name)
    assert isinstance(family, Counter) == family.name.endswith("_total")
    assert not re.search(r"_(ms|milliseconds|minutes|hours|days|kb|mb|percent)(_|$)", family.name)
    if isinstance(family, Histogram):
        assert family.name.endswith("_seconds")
    if isinstance(family, Gauge) and "timestamp" in family.name:
        assert family.name.endswith("_timestamp_seconds")
    assert family.meaning.endswith(".")
    assert not {"recipient", "email", "address", "message", "subject", "key", "id"} & set(family.labels)


def test_the_document_lists_every_metric() -> None:
    """docs/metrics.md has each metric with its kind, labels and meaning, and none that there is not."""
    rows = re.findall(
        r"^\| `(postroom_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$",
        Path(REPOSITORY / "docs/metrics.md").read_text(),
        re.MULTILINE,
    )

    written = {name: (kind, re.findall(r"`(\w+)`", labels), meaning) for name, kind, labels, meaning in rows}

    assert written == {
        family.name: (type(family).__name__.lower(), list(family.labels), family.meaning)
        for family in FAMILIES.values()
    }


# -- what is asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_an_expression_names_what_there_is(place: str, expression: str) -> None:
    """Each metric and each label of the dashboard and the alerts exists."""
    plain = re.sub(r'"[^"]*"', '""', expression)
    names = set(re.findall(r"\b(?:postroom|process)_\w+", plain))
    assert names
    assert names <= SAMPLES.keys() | LIBRARY
    labels = {label for name in names & SAMPLES.keys() for label in SAMPLES[name].labels} | EVERYWHERE
    asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"\"", plain))
    for listed in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", plain):
        asked |= {label.strip() for label in listed.split(",")}
    assert asked <= labels


def test_every_metric_is_on_the_dashboard() -> None:
    """Nothing is counted that nobody can look at."""
    shown = " ".join(target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ()))

    left_out = {family.name for family in FAMILIES.values() if family.name not in shown}

    assert left_out == {"postroom_ledger_read_timestamp_seconds"}


def test_the_dashboard_has_the_form_that_grafana_loads() -> None:
    """Panels have ids of their own, a kind, a place that no other one has, and the chosen data source."""
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    taken: set[tuple[int, int]] = set()

    assert board["uid"] == "postroom"
    assert board["schemaVersion"] >= 36
    assert len(ids) == len(set(ids))
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "route"}
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] in {"stat", "timeseries", "table", "bargauge", "state-timeline"}
        assert panel["description"]
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in (panel, *panel["targets"]):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


# -- alerts --------------------------------------------------------------------------------------


def test_every_alert_leads_to_its_remedy() -> None:
    """Each alert names a heading of the handbook; there a page and a remedy stand; no heading is left over."""
    text = (REPOSITORY / "docs/alerts.md").read_text()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL))

    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]
        assert "**Page" in sections[rule["alert"]]
        assert "do:**" in sections[rule["alert"]].lower()
    assert sections.keys() == {rule["alert"] for rule in rules()}
    assert len(sections) == len(rules())


def test_alerts_and_handbook_name_diagnoses_of_the_catalogue() -> None:
    """A diagnosis that an alert or its page speaks of exists."""
    named = set(re.findall(r'diagnosis="([^"]+)"', ALERTS.read_text()))
    named |= set(re.findall(r"`((?:exo|postroom|smtp)\.\w+)`", (REPOSITORY / "docs/alerts.md").read_text()))

    assert named
    assert named <= {diagnosis.id for diagnosis in CATALOGUE}


@pytest.mark.debian
def test_prometheus_takes_the_rules() -> None:
    """Prometheus' own judge reads every rule."""
    judged = promtool.run("check", "rules", str(ALERTS))

    assert judged.returncode == 0, judged.stderr
    assert f"{len(rules())} rules found" in judged.stdout


@pytest.mark.debian
def test_prometheus_finds_nothing_to_complain_of_in_the_names() -> None:
    """Its linter of metrics is content with a page."""
    for family in FAMILIES.values():
        if isinstance(family, Counter):
            family.add(*family.labels, by=0)  # so that each is on the page
    judged = promtool.run("check", "metrics", given=page("")[0].decode())

    complaints = [line for line in judged.stderr.splitlines() if line.startswith("postroom_")]
    assert not complaints
    assert judged.returncode in {0, 3}


UNIT = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'postroom_queue_oldest_due_seconds{{route="a",lane="a",instance="1"}}', values: '1000x40'}}
      - {{series: 'postroom_queue_oldest_due_seconds{{route="a",lane="a",instance="2"}}', values: '1000x40'}}
      - {{series: 'postroom_lane_paused{{route="a",lane="a",diagnosis="",instance="1"}}', values: '0x40'}}
      - {{series: 'postroom_queue_oldest_due_seconds{{route="b",lane="b",instance="1"}}', values: '1000x40'}}
      - {{series: 'postroom_lane_paused{{route="b",lane="b",diagnosis="exo.smtp_auth_disabled",instance="1"}}', values: '1x40'}}
      - {{series: 'postroom_queue_oldest_due_seconds{{route="c",lane="c",instance="1"}}', values: '1000x40'}}
      - {{series: 'postroom_attempts_total{{route="c",lane="c",outcome="sent",diagnosis=""}}', values: '0+9x40'}}
      - {{series: 'postroom_ledger_up{{instance="1"}}', values: '0x40'}}
      - {{series: 'postroom_ledger_up{{instance="2"}}', values: '1x40'}}
      - {{series: 'postroom_build_info{{process="worker",schema="1"}}', values: '1x40'}}
      - {{series: 'postroom_attempts_rescued_total{{outcome="uncertain"}}', values: '0x20 1x20'}}
      - {{series: 'postroom_leases_lost_total', values: '0x40'}}
      - {{series: 'postroom_bugs_total{{where="sweep"}}', values: '0x20 1x20'}}
      - {{series: 'postroom_bugs_total{{where="request"}}', values: '0x40'}}
    alert_rule_test:
      - eval_time: 30m
        alertname: PostroomQueueStuck
        exp_alerts:
          - exp_labels: {{severity: critical, route: a, lane: a}}
            exp_annotations:
              summary: Mail has been due on lane a for 16m 40s, and nothing is tried.
              runbook: docs/alerts.md#postroomqueuestuck
      - eval_time: 30m
        alertname: PostroomLanePaused
        exp_alerts:
          - exp_labels: {{severity: warning, route: b, lane: b, diagnosis: exo.smtp_auth_disabled}}
            exp_annotations:
              summary: Lane b rests because of exo.smtp_auth_disabled.
              runbook: docs/alerts.md#postroomlanepaused
      - {{eval_time: 30m, alertname: PostroomLedgerUnavailable, exp_alerts: []}}
      - {{eval_time: 30m, alertname: PostroomWorkerMissing, exp_alerts: []}}
      - {{eval_time: 15m, alertname: PostroomLeasesLapse, exp_alerts: []}}
      - eval_time: 30m
        alertname: PostroomLeasesLapse
        exp_alerts:
          - exp_labels: {{severity: warning}}
            exp_annotations:
              summary: Workers died or stood still with mail in hand; what was behind the dot is uncertain.
              runbook: docs/alerts.md#postroomleaseslapse
      - eval_time: 30m
        alertname: PostroomBug
        exp_alerts:
          - exp_labels: {{severity: warning, where: sweep}}
            exp_annotations:
              summary: Postroom met an error of its own (sweep).
              runbook: docs/alerts.md#postroombug
      - eval_time: 30m
        alertname: PostroomApiMissing
        exp_alerts:
          - exp_labels: {{severity: critical, process: api}}
            exp_annotations:
              summary: No API of Postroom is seen; no mail is accepted.
              runbook: docs/alerts.md#postroomapimissing
"""


@pytest.mark.debian
def test_alerts_speak_when_they_should(tmp_path: Path) -> None:
    """A stuck lane calls once, for all processes that see it; one that rests, and one that is worked at, do not."""
    tests = tmp_path / "unit.yaml"
    tests.write_text(UNIT.format(rules=ALERTS))

    judged = promtool.run("test", "rules", str(tests))

    assert judged.returncode == 0, judged.stdout + judged.stderr
