"""Schemas that others own, applied strictly: KubeRay's definitions, and the one of Ray's launcher."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.manifests.findings import Finding, dotted


def check_custom_resource(manifest: Mapping[str, Any], folder: Path) -> list[Finding]:
    """Check a manifest as a Kubernetes server with strict field validation would, but for rules in CEL.

    Args:
        manifest: Of a kind that a definition in ``folder`` declares.
        folder: Holds the definitions, as ``ray.io_rayjobs.yaml``.

    Raises:
        ValueError: There is no such definition, or none that can be read.
    """
    kind = str(manifest.get("kind", ""))
    file = folder / f"ray.io_{kind.lower()}s.yaml"
    version = str(manifest.get("apiVersion", "")).rpartition("/")[2]
    schema = strict(_definition(file, version))
    schema["properties"]["metadata"] = {
        "type": "object",
        "required": ["name"],
    }  # the server has its own
    return _findings(schema, manifest)


def check_launcher(config: Mapping[str, Any]) -> list[Finding]:
    """Check a cluster file by the schema inside the installed Ray."""
    import ray.autoscaler

    file = Path(ray.autoscaler.__file__).with_name("ray-schema.json")
    return _findings(json.loads(file.read_text(encoding="utf-8")), config)


def strict(schema: Any) -> Any:
    """Kubernetes' dialect as plain JSON schema, in which a field that is not declared is a fault."""
    if not isinstance(schema, dict):
        return schema
    plain = {key: value for key, value in schema.items() if key not in ("format", "default", "description", "nullable")}
    if plain.get("x-kubernetes-int-or-string"):
        plain.pop("type", None)
        plain["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("nullable") and "type" in plain:
        plain["type"] = [plain["type"], "null"]
    if "properties" in plain:
        plain["properties"] = {key: strict(value) for key, value in plain["properties"].items()}
        if not plain.get("x-kubernetes-preserve-unknown-fields"):
            plain.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in plain:
            plain[key] = strict(plain[key])
    return plain


@functools.cache
def _definition(file: Path, version: str) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a megabyte: the one in C is twenty times as fast
    try:
        definition = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)
        versions = {entry["name"]: entry for entry in definition["spec"]["versions"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(
            f"--crds: {file} holds no definition ({type(error).__name__}); take KubeRay's crd/bases"
        ) from None
    if version not in versions:
        raise ValueError(f"--crds: {file} has no version {version!r}; it has {', '.join(versions)}")
    return versions[version]["schema"]["openAPIV3Schema"]


def _findings(schema: Mapping[str, Any], value: Any) -> list[Finding]:
    from jsonschema import Draft7Validator

    return [_finding(error) for error in Draft7Validator(schema).iter_errors(value)]


def _finding(error: Any) -> Finding:
    where = dotted(list(error.absolute_path))
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        extra = sorted(set(error.instance) - set(known))
        return Finding(where, f"no such field: {', '.join(map(str, extra))}", _nearest(extra, known))
    if error.validator == "required":
        return Finding(where, error.message[:200], "add it")
    if error.validator == "enum":
        return Finding(where, f"{error.instance!r} is none of {', '.join(map(str, error.validator_value))}", "take one")
    return Finding(where, error.message[:200], f"the schema wants {error.validator} {str(error.validator_value)[:80]}")


def _nearest(extra: list[str], known: Mapping[str, Any]) -> str:
    import difflib

    near = [match for name in extra for match in difflib.get_close_matches(str(name), known, n=1)]
    return f"did you mean {', '.join(near)}?" if near else "remove it"
