"""How rendered objects are looked at: one by its name, the pods by what they run, files by who names them."""

from collections.abc import Iterator

import yaml

from tests.tools.helm import Manifest

SECRETS = "/run/secrets/postroom"
ROUTE_SECRETS = "/run/secrets/routes"


def only(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the one object of this kind and name."""
    (found,) = (it for it in objects if it["kind"] == kind and it["metadata"]["name"] == name)
    return found


def of_kind(objects: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Return all objects of this kind, by their names."""
    return {it["metadata"]["name"]: it for it in objects if it["kind"] == kind}


def pods(objects: list[Manifest]) -> dict[str, Manifest]:
    """Return the pods, as templates or as they are, by their component: api, worker, migrate, test, sandbox."""
    return {
        it["metadata"]["labels"]["app.kubernetes.io/component"]: it
        if it["kind"] == "Pod"
        else it["spec"]["template"]
        for it in objects
        if it["kind"] in {"Deployment", "Job", "Pod"}
    }


def services(objects: list[Manifest]) -> dict[str, Manifest]:
    """Return the pods that run the service itself: api, worker, migrate."""
    return {name: pod for name, pod in pods(objects).items() if name in {"api", "worker", "migrate"}}


def container(pod: Manifest) -> Manifest:
    """Return the one container of a pod."""
    (found,) = pod["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def configuration(objects: list[Manifest], name: str = "post-postroom") -> Manifest:
    """Return what the service will read."""
    loaded = yaml.safe_load(only(objects, "ConfigMap", name)["data"]["postroom.yaml"])
    assert isinstance(loaded, dict)
    return loaded


def named_files(value: object) -> Iterator[str]:
    """Find every path that a configuration names in a field `…_file`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name.endswith("_file"):
                yield inner
            yield from named_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from named_files(inner)


def matching(selector: Manifest, objects: list[Manifest]) -> set[str]:
    """Return the components of the pods that a selector of labels means."""
    return {
        component
        for component, pod in pods(objects).items()
        if selector.items() <= pod["metadata"]["labels"].items()
    }
