"""The pods that KFP 2.17 makes of a compiled pipeline.

`pods` follows KFP's driver (backend/src/v2/driver) and the security context that its workflow compiler adds
(backend/src/v2/compiler/argocompiler/security_context.go): what these set, besides what the document asks for.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline and the Kubernetes settings of its executors by label, of a compiled file."""
    pipeline, *platforms = yaml.safe_load_all(path.read_text())
    settings = platforms[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platforms else {}
    return pipeline, settings


def component_of(label: str) -> str:
    """Name of the component of `comp-NAME` or `exec-NAME`; KFP numbers those that differ between tasks."""
    return re.sub(r"-[0-9]+$", "", label.partition("-")[2])


def tasks(component: dict[str, Any], components: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and specification of every task that runs a container, inside loops and conditions as well."""
    for name, task in component["dag"]["tasks"].items():
        inner = components[task["componentRef"]["name"]]
        if "dag" in inner:
            yield from tasks(inner, components)
        else:
            yield name, task | {"executor": inner["executorLabel"]}


def pods(path: Path) -> dict[str, dict[str, Any]]:
    """The pod of each executor of a compiled file, by the executor's label."""
    pipeline, settings = documents(path)
    executors = pipeline["deploymentSpec"]["executors"]
    return {label: pod(label, item["container"], settings.get(label, {})) for label, item in executors.items()}


def pod(label: str, container: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """One pod."""
    asked = container.get("resources", {})
    quantities = {
        kind: {
            resource: asked[f"resource{resource.title()}{kind.title()}"]
            for resource in ("cpu", "memory")
            if f"resource{resource.title()}{kind.title()}" in asked
        }
        for kind in ("request", "limit")
    }
    if accelerator := asked.get("accelerator"):
        quantities["limit"][accelerator["resourceType"]] = accelerator["resourceCount"]
    env: list[dict[str, Any]] = list(container.get("env", []))
    for kind, key, reference in (
        ("secretAsEnv", "secretKey", "secretKeyRef"),
        ("configMapAsEnv", "configMapKey", "configMapKeyRef"),
    ):
        for source in settings.get(kind, []):
            name = source["secretName" if kind == "secretAsEnv" else "configMapName"]
            for pair in source["keyToEnv"]:
                selector = {"name": name, "key": pair[key], "optional": source["optional"]}
                env.append({"name": pair["envVar"], "valueFrom": {reference: selector}})
    env += [
        {"name": item["name"], "valueFrom": {"fieldRef": {"fieldPath": item["fieldPath"]}}}
        for item in settings.get("fieldPathAsEnv", [])
    ]
    mounts = settings.get("emptyDirMounts", [])
    asked_context = settings.get("securityContext", {})
    identity = {key: int(value) for key, value in asked_context.items() if key in ("runAsUser", "runAsGroup")}
    if "runAsNonRoot" in asked_context:
        identity["runAsNonRoot"] = asked_context["runAsNonRoot"]
    main = {
        "name": "main",
        "image": container["image"],
        "command": container["command"],
        "args": container["args"],
        "env": env,
        "resources": {"requests": quantities["request"], "limits": quantities["limit"]},
        "volumeMounts": [{"name": item["volumeName"], "mountPath": item["mountPath"]} for item in mounts],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        | identity,
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [main],
        "volumes": [{"name": item["volumeName"], "emptyDir": empty_dir(item)} for item in mounts],
        "tolerations": settings.get("tolerations", []),
        "nodeSelector": settings.get("nodeSelector", {}).get("labels", {}),
        "imagePullSecrets": [{"name": item["secretName"]} for item in settings.get("imagePullSecret", [])],
    }
    if "activeDeadlineSeconds" in settings:
        spec["activeDeadlineSeconds"] = int(settings["activeDeadlineSeconds"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": label}, "spec": spec}


def empty_dir(mount: dict[str, Any]) -> dict[str, Any]:
    """The volume of a mount."""
    return {key: mount[key] for key in ("medium", "sizeLimit") if key in mount}
