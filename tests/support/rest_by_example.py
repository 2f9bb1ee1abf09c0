"""REST that answers each call with the example of the OpenAPI document, for commands in this process.

Rule: a call that the document does not have, or a parameter that it does not know, fails the test.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from control_plane.cli.rest.client import ControlPlane
from tests.docs.cli_fields import openapi


@dataclass(slots=True)
class ExampleRest:
    """`calls` are the operations that were called, with the JSON that was sent."""

    document: Mapping[str, Any] = field(default_factory=openapi)
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def call(self, _plane: ControlPlane, method: str, path: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """In place of `ControlPlane.call`."""
        operation = self._operation(method, path, request)
        self.calls.append((operation["operationId"], request.get("json", request.get("content"))))
        found = [
            example
            for status, answer in operation["responses"].items()
            if status.startswith("2")
            for content in answer.get("content", {}).values()
            for example in self._examples(content.get("schema", {}))
        ]
        dry = (request.get("params") or {}).get("dry_run") == "true"
        answer = dict(next((one for one in found if bool(one.get("dry_run")) == dry), found[0]) if found else {})
        # One page is enough.
        return {**answer, "cursor": None} if "cursor" in answer else answer

    def lines(self, _plane: ControlPlane, path: str, params: object, _headers: object = None) -> Iterator[str]:
        """In place of `ControlPlane.lines`."""
        operation = self._operation("GET", path, {"params": params})
        self.calls.append((operation["operationId"], None))
        yield '{"line": 1}\n'

    def delete(self, plane: ControlPlane, path: str, params: Mapping[str, str] | None = None) -> None:
        """In place of `ControlPlane.delete`."""
        self.call(plane, "DELETE", path, params=params)

    def readiness(self, plane: ControlPlane) -> dict[str, Any]:
        """In place of `ControlPlane.readiness`."""
        return self.call(plane, "GET", "/health/ready")

    def _operation(self, method: str, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        # A path without a variable comes first.
        for template in sorted(self.document["paths"], key=lambda one: (one.count("{"), one)):
            if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path):
                operation: dict[str, Any] = self.document["paths"][template].get(method.lower())
                if operation is not None:
                    break
        else:
            message = f"REST has no {method} {path}"
            raise AssertionError(message)
        known = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
        assert set(request.get("params") or ()) <= known, (operation["operationId"], request)
        return operation

    def _examples(self, schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())] or [schema]
        yield from (self._example(one) for one in choices if one)

    def _example(self, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        """The example of a schema, or one that is made of those of its members."""
        if "$ref" in schema:
            return self._example(self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        if "examples" in schema:
            return schema["examples"][0]
        if "anyOf" in schema:
            return self._example(schema["anyOf"][0])
        match schema.get("type"):
            case "object":
                return {name: self._example(one) for name, one in schema.get("properties", {}).items()}
            case "array":
                return [self._example(schema["items"])]
            case "string":
                return schema.get("enum", ["2025-11-01T10:00:00.000Z" if schema.get("format") else "text"])[0]
            case "integer" | "number":
                return 1
            case _:
                return schema.get("type") == "boolean"
