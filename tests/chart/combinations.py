"""Values to render the chart with: a tenant, one variation a line, and every pair of switches.

For n switches, `pairs` needs about 2·log₂ n sets of values to have any two of them on and off in all
four ways: beside all and none, one set for each binary digit of a switch's number, and its opposite.
"""

from typing import Any

from tests.chart.manifests import ROUTE_SECRETS
from tests.tools.helm import Values

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

#: Everything that can be switched, on its own.
SWITCHES: dict[str, Values] = {
    "api scales": {"api": {"autoscaling": {"enabled": True}}},
    "workers scale": {"worker": {"autoscaling": {"enabled": True}}},
    "workers scale by Prometheus": {
        "worker": {"autoscaling": {"prometheus": {"serverAddress": "http://prometheus:9090", "query": "1"}}}
    },
    "a role for KEDA": {"worker": {"autoscaling": {"postgresql": {"existingSecret": "reader"}}}},
    "no budget of the api": {"api": {"disruptionBudget": {"enabled": False}}},
    "a budget in per cent": {"worker": {"disruptionBudget": {"maxUnavailable": "50%"}}},
    "no drain": {"api": {"drainSeconds": 0}},
    "proxies": {"api": {"trustedProxies": ["10.0.0.0/8"]}},
    "no migration": {"migration": {"enabled": False}},
    "no service account": {"serviceAccount": {"create": False}},
    "sandbox": {"sandbox": {"enabled": True}},
    "encryption": {"encryptionKey": {"existingSecret": "seal", "key": "key"}},
    "rotation": {"previousEncryptionKey": {"existingSecret": "seal", "key": "before"}},
    "webhooks inside": {"webhooks": {"allowHttp": True, "allowedNetworks": ["10.20.0.0/16"]}},
    "webhooks anywhere": {"webhooks": {"allowPrivate": True}},
    "an authority": {"webhooks": {"ca": {"existingSecret": "authority"}}},
    "ingress": {"ingress": {"enabled": True, "hosts": ["mail.contoso.com"], "className": "nginx"}},
    "ingress with TLS": {"ingress": {"tlsSecret": "mail-tls", "annotations": {"a": "b"}}},
    "gateway": {
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gate"}], "hostnames": ["mail.contoso.com"]}
    },
    "closed network": {"networkPolicy": {"enabled": True}},
    "who may call": {
        "networkPolicy": {
            "apiFrom": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}],
            "sandboxFrom": [{"namespaceSelector": {}}],
            "database": {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]},
            "redis": {"to": [{"podSelector": {"matchLabels": {"app": "valkey"}}}]},
            "extraEgress": [{"ports": [{"port": 2525, "protocol": "TCP"}]}],
        }
    },
    "figures": {"monitoring": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}},
    "alerts": {"monitoring": {"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}}},
    "dashboards": {"monitoring": {"dashboards": {"enabled": True, "annotations": {"folder": "Mail"}}}},
    "routes": {"routeSecrets": TENANT["routeSecrets"], "config": TENANT["config"]},
}


def pairs(names: list[str]) -> list[frozenset[str]]:
    """Return sets of switches in which any two are on and off in all four ways."""
    digits = len(names).bit_length()
    ones = [
        frozenset(name for number, name in enumerate(names) if number >> digit & 1) for digit in range(digits)
    ]
    all_of_them = frozenset(names)
    return [frozenset(), all_of_them, *ones, *(all_of_them - some for some in ones)]


def switched(names: frozenset[str]) -> Values:
    """Return the values with these switches thrown."""
    values: dict[str, Any] = {}
    for name in sorted(names):
        _merge(values, SWITCHES[name])
    return values


def _merge(lower: dict[str, Any], upper: Values) -> None:
    for name, value in upper.items():
        if isinstance(value, dict):
            _merge(lower.setdefault(name, {}), value)
        else:
            lower[name] = value
