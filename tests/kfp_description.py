"""The published description of the Kubeflow Pipelines API as a judge of requests and answers.

Every path, query and body is validated, and unknown fields fail. The one liberty is what kfp.Client needs: two int64
fields come as numbers where the description says text.
"""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft4Validator, FormatChecker

CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13}
"""Codes of gRPC."""
NUMBERS_SENT = {("v2beta1RecurringRun", "max_concurrency"), ("v2beta1PeriodicSchedule", "interval_second")}


class Failure(Exception):  # noqa: N818
    """What the server answers in place of a result: the `status` of HTTP and the described `body`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": CODES.get(status, 2), "message": message}


def strict(definitions: dict[str, Any], numbers: bool) -> dict[str, Any]:
    """The definitions with unknown fields refused; with `numbers` the two int64 fields may be integers."""

    def close(schema: Any) -> Any:
        if isinstance(schema, list):
            return [close(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        closed = {key: close(value) for key, value in schema.items()}
        if isinstance(closed.get("properties"), dict) and closed["properties"] and closed.get("type") == "object":
            closed.setdefault("additionalProperties", False)
        return closed

    closed = {name: close(schema) for name, schema in definitions.items()}
    if numbers:
        for name, key in NUMBERS_SENT:
            closed[name]["properties"][key]["type"] = ["string", "integer"]
    return closed


class Description:
    """The published description: finds the operation of a request and validates what goes over the wire."""

    def __init__(self, path: Path) -> None:
        document = json.loads(path.read_text())
        self.incoming = strict(document["definitions"], numbers=True)
        self.outgoing = strict(document["definitions"], numbers=False)
        self.operations = []
        for template, methods in document["paths"].items():
            parts = re.split(r"\{([^}]+)\}", template)
            pattern = re.compile("([^/:]+)".join(re.escape(part) for part in parts[::2]) + "$")
            for method, operation in methods.items():
                self.operations.append((method.upper(), pattern, parts[1::2], operation))
        self.operations.sort(key=lambda item: len(item[2]))

    def find(self, method: str, path: str) -> tuple[dict[str, Any], dict[str, str]]:
        for known, pattern, names, operation in self.operations:
            if known == method and (match := pattern.match(path)):
                return operation, dict(zip(names, map(unquote, match.groups()), strict=True))
        raise Failure(404, f"no operation {method} {path}")

    def check(self, schema: dict[str, Any], value: Any, definitions: dict[str, Any]) -> None:
        validator = Draft4Validator(schema | {"definitions": definitions}, format_checker=FormatChecker())
        errors = [f"{'/'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(value)]
        if errors:
            raise Failure(400, f"not as described: {'; '.join(errors)}")

    def check_request(self, operation: dict[str, Any], query: dict[str, str], body: Any, files: dict[str, Any]) -> None:
        parameters = {item["name"]: item for item in operation.get("parameters", [])}
        for name, value in query.items():
            item = parameters.get(name)
            if item is None or item["in"] != "query":
                raise Failure(400, f"not as described: query {name} of {operation['operationId']}")
            if item["type"] == "integer" and not value.lstrip("-").isdigit():
                raise Failure(400, f"not as described: query {name}={value} is no integer")
            if "enum" in item and value not in item["enum"]:
                raise Failure(400, f"not as described: query {name}={value} is none of {item['enum']}")
        wanted = next((item for item in parameters.values() if item["in"] == "body"), None)
        if wanted:
            self.check(wanted["schema"], body, self.incoming)
        elif body is not None:
            raise Failure(400, f"not as described: {operation['operationId']} takes no body")
        form = {item["name"] for item in parameters.values() if item["in"] == "formData"}
        if set(files) != form:
            raise Failure(400, f"not as described: form {sorted(files)} instead of {sorted(form)}")

    def check_answer(self, operation: dict[str, Any], status: int, value: Any) -> None:
        key = "200" if status == 200 else "default"
        try:
            self.check(operation["responses"][key]["schema"], value, self.outgoing)
        except Failure as error:
            raise AssertionError(f"the test server itself strays from the description: {error}") from error
