"""What can be switched on: scaling, ways in, the closed network, the sandbox, the test of a release."""

import re

import pytest
import yaml

from service.ledger.tables import metadata
from tests.chart.combinations import TENANT
from tests.chart.manifests import container, matching, of_kind, only, pods
from tests.tools.helm import CHART, Helm, Manifest, Values

NETWORK: Values = {"networkPolicy": {"enabled": True}}


def _objects(helm: Helm, values: Values, kind: str) -> dict[str, Manifest]:
    return of_kind(helm.render(values), kind)


# --- scaling ---------------------------------------------------------------------------------------


def test_api_scales_by_cpu(helm: Helm) -> None:
    """The autoscaler owns the number of API pods, so the Deployment does not say one."""
    values: Values = {"api": {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 7}}}

    objects = helm.render(values)

    spec = only(objects, "HorizontalPodAutoscaler", "post-postroom-api")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 7)
    assert spec["metrics"][0]["resource"]["name"] == "cpu"
    assert "replicas" not in only(objects, "Deployment", "post-postroom-api")["spec"]
    # A share of what is requested cannot be had without a request.
    assert "cpu" in container(pods(objects)["api"])["resources"]["requests"]


def test_workers_scale_by_the_age_of_the_queue(helm: Helm) -> None:
    """KEDA asks PostgreSQL with the database's own Secret, and owns the number of workers."""
    objects = helm.render({**TENANT, "worker": {"autoscaling": {"enabled": True}}})

    spec = only(objects, "ScaledObject", "post-postroom-worker")["spec"]
    (trigger,) = spec["triggers"]
    secret = only(objects, "TriggerAuthentication", trigger["authenticationRef"]["name"])["spec"]
    assert trigger["type"] == "postgresql"
    assert trigger["metadata"]["targetQueryValue"] == "30"
    assert secret["secretTargetRef"] == [{"parameter": "connection", "name": "cluster-app", "key": "uri"}]
    assert "replicas" not in only(objects, "Deployment", "post-postroom-worker")["spec"]
    # Each worker's share of the age, so that twice the age asks for twice the workers and not for the square.
    assert trigger["metricType"] == "AverageValue"


def test_lanes_with_a_limit_do_not_ask_for_workers(helm: Helm) -> None:
    """Routes on which a limit makes mail wait are left out of the age: more workers would send no more."""
    query = _query(helm, {**TENANT, "worker": {"autoscaling": {"enabled": True}}})
    none = _query(helm, {"worker": {"autoscaling": {"enabled": True}}})

    assert "d.route IN ('connector')" in query
    assert "d.route IN (NULL)" in none


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("max(age)", "max(age)"),
        ("", 'max(postroom_queue_oldest_due_seconds{route=~"connector"})'),
    ],
)
def test_prometheus_can_be_asked_instead(helm: Helm, query: str, asked: str) -> None:
    """With an address of Prometheus no Secret of the database leaves its place."""
    prometheus = {"serverAddress": "http://prometheus:9090", "query": query}
    scaling = {"autoscaling": {"enabled": True, "prometheus": prometheus}}

    objects = helm.render({**TENANT, "worker": scaling})

    (trigger,) = only(objects, "ScaledObject", "post-postroom-worker")["spec"]["triggers"]
    assert trigger["type"] == "prometheus"
    assert trigger["metadata"] == {
        "serverAddress": "http://prometheus:9090",
        "query": asked,
        "threshold": "30",
    }
    assert not of_kind(objects, "TriggerAuthentication")


def _query(helm: Helm, values: Values) -> str:
    (trigger,) = _objects(helm, values, "ScaledObject")["post-postroom-worker"]["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    assert isinstance(query, str)
    return query


def test_the_query_names_what_there_is(helm: Helm) -> None:
    """Every table and column of KEDA's query is one of the ledger's."""
    query = _query(helm, {**TENANT, "worker": {"autoscaling": {"enabled": True}}})
    tables = dict(re.findall(r"(?:FROM|JOIN) (\w+) (\w)\b", query))

    assert set(tables) == {"deliveries", "lanes", "stops"}
    for table, alias in tables.items():
        used = set(re.findall(rf"\b{alias}\.(\w+)", query))
        assert used <= set(metadata.tables[table].columns.keys())


@pytest.mark.parametrize("component", ["api", "worker"])
def test_nodes_are_drained_one_pod_at_a_time(helm: Helm, component: str) -> None:
    """A disruption budget means the pods of its own kind."""
    objects = helm.render({})

    spec = only(objects, "PodDisruptionBudget", f"post-postroom-{component}")["spec"]
    assert spec["maxUnavailable"] == 1
    assert matching(spec["selector"]["matchLabels"], objects) == {component}


def test_pods_of_a_kind_keep_apart(helm: Helm) -> None:
    """Pods spread over zones and nodes among their own kind, and start all the same where that cannot be."""
    for component in ("api", "worker"):
        spread = pods(helm.render({}))[component]["spec"]["topologySpreadConstraints"]
        assert [it["topologyKey"] for it in spread] == [
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        ]
        for it in spread:
            assert it["whenUnsatisfiable"] == "ScheduleAnyway"
            assert it["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == component


# --- the ways in -----------------------------------------------------------------------------------


def test_ingress_leads_to_the_api(helm: Helm) -> None:
    """Each host of the Ingress leads to a port that the API's Service has, under its certificate."""
    hosts = ["mail.contoso.com", "mail.contoso.net"]
    ingress = {"enabled": True, "className": "nginx", "hosts": hosts, "tlsSecret": "mail-tls"}

    objects = helm.render({"ingress": ingress})

    spec = only(objects, "Ingress", "post-postroom-api")["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == [{"secretName": "mail-tls", "hosts": hosts}]
    assert [rule["host"] for rule in spec["rules"]] == hosts
    for rule in spec["rules"]:
        backend = rule["http"]["paths"][0]["backend"]["service"]
        service = only(objects, "Service", backend["name"])["spec"]
        assert backend["port"]["name"] in {port["name"] for port in service["ports"]}


def test_gateway_leads_to_the_api(helm: Helm) -> None:
    """The HTTPRoute names its gateway, and a port that the API's Service has."""
    parent = {"name": "gate", "namespace": "edge"}
    values: Values = {
        "api": {"service": {"port": 8080}},
        "httpRoute": {"enabled": True, "parentRefs": [parent], "hostnames": ["mail.contoso.com"]},
    }

    objects = helm.render(values)

    spec = only(objects, "HTTPRoute", "post-postroom-api")["spec"]
    ((backend,),) = (rule["backendRefs"] for rule in spec["rules"])
    assert spec["parentRefs"] == [parent]
    assert spec["hostnames"] == ["mail.contoso.com"]
    service = only(objects, "Service", backend["name"])["spec"]
    assert backend["port"] in {port["port"] for port in service["ports"]}


# --- the network -----------------------------------------------------------------------------------


def _ports(rules: list[Manifest]) -> set[int]:
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_the_network_is_closed_but_for_what_is_needed(helm: Helm) -> None:
    """Out go names, PostgreSQL, Redis, SMTP and HTTPS; in comes HTTP to the API; the migration talks to the database."""
    policies = _objects(helm, NETWORK, "NetworkPolicy")

    out = {name.removeprefix("post-postroom-"): _ports(it["spec"]["egress"]) for name, it in policies.items()}
    usual = {53, 5432, 6379, 25, 587, 443}
    assert out == {"api": usual, "worker": usual, "test": usual | {8000}, "migrate": {53, 5432}}
    assert all(it["spec"]["policyTypes"] == ["Ingress", "Egress"] for it in policies.values())
    assert _ports(policies["post-postroom-api"]["spec"]["ingress"]) == {8000, 8001}
    assert _ports(policies["post-postroom-worker"]["spec"]["ingress"]) == {8001}
    assert not [
        name for name in ("migrate", "test") if policies[f"post-postroom-{name}"]["spec"].get("ingress")
    ]


def test_every_pod_has_its_policy(helm: Helm) -> None:
    """Each policy means the pods of one kind, and no kind is forgotten."""
    objects = helm.render({**NETWORK, "sandbox": {"enabled": True}})

    meant = [
        matching(it["spec"]["podSelector"]["matchLabels"], objects)
        for it in of_kind(objects, "NetworkPolicy").values()
    ]
    assert sorted(meant, key=sorted) == [{it} for it in ("api", "migrate", "sandbox", "test", "worker")]


def test_the_migrations_policy_comes_before_it(helm: Helm) -> None:
    """In a namespace that is closed by default the migration has its way out before the release exists."""
    annotations = _objects(helm, NETWORK, "NetworkPolicy")["post-postroom-migrate"]["metadata"]["annotations"]

    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(annotations["helm.sh/hook-weight"]) < -5


def test_the_network_can_be_narrower(helm: Helm) -> None:
    """Who may call, where the database is and one more way out are taken over as they are given."""
    shop = {"namespaceSelector": {"matchLabels": {"team": "shop"}}}
    block = {"ipBlock": {"cidr": "10.1.2.3/32"}}
    smarthost = {"ports": [{"port": 2525, "protocol": "TCP"}], "to": [block]}
    narrow = {"enabled": True, "apiFrom": [shop], "database": {"to": [block]}, "extraEgress": [smarthost]}

    objects = helm.render({"networkPolicy": narrow})

    api = only(objects, "NetworkPolicy", "post-postroom-api")["spec"]
    (way_in,) = (it for it in api["ingress"] if _ports([it]) == {8000})
    assert shop in way_in["from"]
    # The test of the release may still ask.
    assert {"test"} in [
        matching(it["podSelector"]["matchLabels"], objects) for it in way_in["from"] if "podSelector" in it
    ]
    assert smarthost in api["egress"]
    assert [it["to"] for it in api["egress"] if _ports([it]) == {5432}] == [[block]]


# --- figures ---------------------------------------------------------------------------------------


def test_figures_are_collected_from_every_process(helm: Helm) -> None:
    """The ServiceMonitor means a Service whose pods, API and worker, have the port of figures."""
    objects = helm.render({"monitoring": {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}}})

    monitor = only(objects, "ServiceMonitor", "post-postroom-metrics")
    (service,) = (
        it
        for it in of_kind(objects, "Service").values()
        if monitor["spec"]["selector"]["matchLabels"].items() <= it["metadata"]["labels"].items()
    )
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = service["spec"]["ports"]
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")
    with_port = {
        component
        for component, pod in pods(objects).items()
        for one in pod["spec"]["containers"]
        if port["targetPort"] in {it["name"] for it in one.get("ports", ())}
    }
    assert with_port == {"api", "worker"} <= matching(service["spec"]["selector"], objects)
    # Who is not ready has the most to tell.
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_alerts_and_dashboards_are_the_charts_files(helm: Helm) -> None:
    """Every group of alerts and every dashboard that the chart has gets into the release, unchanged."""
    asked = {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}
    groups = [
        group
        for path in sorted((CHART / "files").rglob("*.yaml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    dashboards = {path.name: path.read_text() for path in (CHART / "files").rglob("*.json")}

    objects = helm.render({"monitoring": asked})

    assert only(objects, "PrometheusRule", "post-postroom-metrics")["spec"]["groups"] == groups
    found = only(objects, "ConfigMap", "post-postroom-dashboards")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {name: text.strip() for name, text in found["data"].items()} == {
        name: text.strip() for name, text in dashboards.items()
    }


# --- the sandbox and the test ----------------------------------------------------------------------


def test_the_sandbox_is_off_unless_asked_for(helm: Helm) -> None:
    """Without the switch no pod of it runs, and test keys have no way."""
    assert "sandbox" not in pods(helm.render({}))


def test_the_sandbox_forgets_with_its_pod(helm: Helm) -> None:
    """It keeps its state beside the read-only root, holds no secret of the service, and is never there twice."""
    objects = helm.render({**TENANT, "sandbox": {"enabled": True}})

    deployment = only(objects, "Deployment", "post-postroom-sandbox")["spec"]
    pod = deployment["template"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    assert all("emptyDir" in volume for volume in pod["volumes"])
    state = container(pods(objects)["sandbox"])["args"][2]
    assert any(state.startswith(it["mountPath"]) for it in pod["containers"][0]["volumeMounts"])


def test_a_release_can_be_tested(helm: Helm) -> None:
    """`helm test` asks the API through its Service, and has `postroom check` go through every route."""
    objects = helm.render({"api": {"service": {"port": 8080}}})

    pod = only(objects, "Pod", "post-postroom-test")
    first, second = pod["spec"]["containers"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert first["command"][-1] == "http://post-postroom-api:8080/readyz"
    assert second["args"] == ["check"]
    assert pod["spec"]["restartPolicy"] == "Never"
