"""Reading a manifest of any kind, and asking what is wrong with it; nothing is started and no cluster is asked."""

from pathlib import Path
from typing import Any

import yaml

from cluster.manifests import check_kuberay, check_ray_up, check_slurm
from cluster.manifests.findings import Finding, Report


def check(file: Path, *, crds: str | None = None, gates: str = "") -> Report:
    """Check a manifest.

    Args:
        file: The manifest: YAML of a RayJob or of ``ray up``, or a batch script.
        crds: Folder of KubeRay's definitions; without it the schema is not checked, and the report says so.
        gates: Feature gates that the operator has switched on, with commas.

    Raises:
        ValueError: The file cannot be read or is none of these, or ``crds`` holds no definitions.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from None
    if text.startswith("#!") or "\n#SBATCH" in text:
        return check_slurm.check(text)
    try:
        documents = [document for document in yaml.load_all(text, Loader=_OneOfEach) if document is not None]
    except yaml.YAMLError as error:
        fault = " ".join(str(error).split())[:200]
        return Report([Finding("file", f"not YAML that every reader takes alike ({fault})", "mend that line")])
    if len(documents) == 1 and isinstance(documents[0], dict):
        (found,) = documents
        if "provider" in found or "cluster_name" in found:
            return check_ray_up.check(found)
        if "kind" in found or "apiVersion" in found:
            enabled = frozenset(gate.strip() for gate in gates.split(",") if gate.strip())
            return check_kuberay.check(found, None if crds is None else Path(crds), enabled)
    raise ValueError(
        f"{file}: neither a RayJob alone, nor a cluster file of `ray up`, nor a batch script; "
        "`raydeck cluster render` makes one"
    )


class _OneOfEach(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Refuses a key that stands twice: YAML's readers take the last without a word, and Kubernetes refuses it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for position, key in enumerate(keys) if key in keys[:position]]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)
