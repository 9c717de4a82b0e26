"""Checks resources against published schemas: CRDs of Kubeflow and Katib's OpenAPI description.

Stricter than a cluster's API server: fields that a schema does not know are errors, not dropped.
"""

import functools
import json
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 253, "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
        "namespace": {"type": "string", "maxLength": 63, "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "finalizers": {"type": "array", "items": {"type": "string"}},
        "ownerReferences": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["name"],
    "additionalProperties": False,
}
LITERAL = ("enum", "default", "required")
"""Keywords whose values are data, not schemas."""


def errors_of_resource(resource: dict[str, Any], crds: Path) -> list[str]:
    """What is wrong with a custom resource, by the CRD of its kind in the folder `crds`.

    Raises:
        LookupError: no CRD there describes the kind and version.
    """
    group, _, version = str(resource["apiVersion"]).rpartition("/")
    schema = _crds(crds).get((group, version, resource["kind"]))
    if schema is None:
        raise LookupError(f"no CRD for {resource['apiVersion']} {resource['kind']} in {crds}")
    return _errors(schema, resource)


def errors_of_experiment(experiment: dict[str, Any], crds: Path) -> list[str]:
    """What is wrong with a Katib Experiment; its CRD has no schema, so Katib's OpenAPI description is taken."""
    return _errors(_katib(crds, "v1beta1.Experiment"), experiment)


def _errors(schema: dict[str, Any], resource: dict[str, Any]) -> list[str]:
    found = sorted(Draft7Validator(schema).iter_errors(resource), key=lambda error: list(map(str, error.path)))
    return [f"{'.'.join(map(str, error.path)) or resource['kind']}: {error.message[:300]}" for error in found]


@functools.cache
def _crds(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Closed schemas by group, version and kind."""
    schemas = {}
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
            spec = document["spec"]
            for version in spec["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                if "properties" in schema:
                    schema["properties"] |= {
                        "apiVersion": {"type": "string"},
                        "kind": {"const": spec["names"]["kind"]},
                        "metadata": METADATA,
                    }
                    schema["required"] = sorted({*schema.get("required", []), "apiVersion", "kind", "metadata"})
                schemas[spec["group"], version["name"], spec["names"]["kind"]] = schema
    return schemas


@functools.cache
def _katib(folder: Path, name: str) -> dict[str, Any]:
    """Closed schema of a component of Katib's OpenAPI description, its references resolved."""
    components = json.loads((folder / "katib-openapi.json").read_text())["components"]["schemas"]
    schema = dict(closed(_resolved(components[name], components, ())))
    schema["properties"] |= {"metadata": METADATA, "kind": {"const": name.rpartition(".")[2]}}
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return schema


def _resolved(schema: Any, components: dict[str, Any], above: tuple[str, ...]) -> Any:
    """`schema` with its `$ref`s replaced by what they name; a name inside itself becomes an open object."""
    if isinstance(schema, list):
        return [_resolved(item, components, above) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return {"type": "object"} if name in above else _resolved(components[name], components, (*above, name))
    return {key: value if key in LITERAL else _resolved(value, components, above) for key, value in schema.items()}


def closed(schema: Any) -> Any:
    """A Kubernetes schema as JSON Schema: integers or strings, nullable values, and no unknown fields."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: value if key in LITERAL else closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        schema.pop("type", None)
        schema.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if schema.get("nullable") and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    open_to_all = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"
    if (
        schema.get("type") == "object"
        and isinstance(schema.get("properties"), dict)
        and "additionalProperties" not in schema
        and not any(schema.get(keyword) for keyword in open_to_all)
    ):
        schema["additionalProperties"] = False
    return schema
