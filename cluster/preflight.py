"""What is looked at before anything starts on a cluster, so that a fault costs seconds and not a night."""

import math
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from cluster import _probe, console
from cluster.access import address_of
from cluster.folder import Folder
from cluster.placement import Placement

ANSWER_SECONDS = 60
"""Time that a node has to start a process and answer."""
TELL_SECONDS = 5
"""How long a run waits for its resources before it says so."""
MORE_SECONDS = 10
"""How long a run with room for its fewest workers waits for more: a lost node counts as room until it is noticed."""
LEAST_FREE_BYTES, LEAST_FREE_PART = 2**30, 0.05
"""Less free disk is a fault. Ray itself stops placing objects on a disk that is fuller than 95 %."""

Probe = Callable[[str, str | None], dict[str, Any]]


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Args:
        check: What was looked at.
        where: On which node, or of the whole cluster.
        result: What was found.
        mend: What to do about it; empty if all is well.
    """

    check: str
    where: str
    result: str
    mend: str = ""

    @property
    def line(self) -> str:
        return f"{self.check}, {self.where}: {self.result}; {self.mend}"


@dataclass(frozen=True)
class Node:
    """A node that is there to stay.

    Args:
        id: Ray's name of it.
        label: How people know it.
        resources: What it has when idle.
    """

    id: str
    label: str
    resources: dict[str, float]


def nodes() -> list[Node]:
    """The nodes of the cluster that this process has joined, but for those about to be taken away."""
    import ray

    leaving = draining()
    return [
        Node(node["NodeID"], f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})", node["Resources"])
        for node in sorted(ray.nodes(), key=lambda node: node["NodeManagerAddress"])
        if node["Alive"] and node["NodeID"] not in leaving
    ]


def draining() -> set[str]:
    """Ids of the nodes that have been given notice (drained, preempted)."""
    import ray

    return set(ray._private.state.state.get_draining_nodes())


def bundle(placement: Placement) -> dict[str, float]:
    """Resources of one worker of a placement that has been decided."""
    each = {"CPU": float(placement.cpus_per_worker), "GPU": float(placement.gpus_per_worker)}
    return {kind: count for kind, count in each.items() if count}


def room(found: Iterable[Node], each: dict[str, float]) -> int:
    """Workers that the nodes hold when idle: each worker is on one node, with all it needs."""
    return sum(min(int(node.resources.get(kind, 0.0) / count + 1e-6) for kind, count in each.items()) for node in found)


def fit(asked: Placement, placed: Placement, found: Sequence[Node]) -> Placement:
    """Fit a placement to nodes: what a cluster has in sum need not lie on any one of them.

    Args:
        asked: As the user gave it: CPUs that are left open are shared out anew.
        placed: As decided from the cluster's sum.
        found: The nodes.

    Raises:
        ValueError: There is no room for all workers on the nodes.
    """
    least = placed.cpus_per_worker if asked.cpus_per_worker else 1
    held = room(found, bundle(replace(placed, cpus_per_worker=least)))
    for cpus in range(placed.cpus_per_worker, least - 1, -1):
        fitted = replace(placed, cpus_per_worker=cpus)
        if room(found, bundle(fitted)) >= max(placed.fewest, min(placed.most, held)):
            return fitted
    raise ValueError(
        f"{wanted(replace(placed, cpus_per_worker=least))} are asked for, and the cluster's {_nodes(len(found))} hold "
        f"{held} of them; ask for fewer workers or less each"
    )


def quick(placement: Placement, directory: str, probe: Probe = _probe.examine) -> None:
    """What a run or a sweep needs on the nodes: their versions, and its folder seen by each.

    A cluster of one node that this process has started needs no look: it is this machine.

    Args:
        placement: Where the run happens.
        directory: Its folder.
        probe: What each node answers with.

    Raises:
        ValueError: The first fault, in one line.
    """
    found = nodes()
    if address_of(placement) == "local" and len(found) == 1:
        return
    findings, answers = ask(found, Folder(directory), probe)
    for finding in [*findings, *compare_versions(found, answers)]:
        if finding.mend:
            raise ValueError(finding.line)


def ask(found: Sequence[Node], folder: Folder | None, probe: Probe = _probe.examine) -> tuple[list[Finding], dict]:
    """Ask all nodes at once, each by a task of its own that takes no CPU and so runs on a busy node, too.

    Args:
        found: The nodes.
        folder: The storage, which they should see; None to leave it alone.
        probe: What each node answers with.

    Returns:
        Findings on the storage and on nodes that do not answer; and each node's answer by its id.
    """
    if folder is None:
        return _answers(found, None, probe)
    existed = folder.exists()
    shared = folder / f".probe-{uuid.uuid4().hex[:8]}"
    try:
        folder.make()
        shared.make()
        shared.write("driver", shared.name.encode())
    except ValueError as error:
        fault = str(error).removeprefix("--storage: ")
        fault, _, mend = fault.partition("; ")
        findings, answers = _answers(found, None, probe)
        return [*findings, Finding("storage", "this machine", fault, mend)], answers
    try:
        findings, answers = _answers(found, str(shared), probe)
        findings += [_seen(node, answers[node.id], folder, shared) for node in found if node.id in answers]
    finally:
        folder.remove(shared.name)
        if not existed and folder.is_local and not any(folder.local.iterdir()):
            folder.local.rmdir()
    return findings, answers


def _answers(found: Sequence[Node], storage: str | None, probe: Probe) -> tuple[list[Finding], dict]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.cloudpickle.register_pickle_by_value(_probe)
    try:
        task = ray.remote(num_cpus=0, max_retries=0)(probe)
        asked = {
            node.id: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
                node.id, storage
            )
            for node in found
        }
    finally:
        ray.cloudpickle.unregister_pickle_by_value(_probe)
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_SECONDS, fetch_local=True)
    findings, answers = [], {}
    for node in found:
        try:
            answers[node.id] = ray.get(asked[node.id], timeout=0.1)
        except Exception as error:  # of Ray's, or whatever the node could not do
            late = isinstance(error, ray.exceptions.GetTimeoutError)
            reason = f"no answer within {ANSWER_SECONDS} s" if late else str(error).strip().rpartition("\n")[2][:200]
            ray.cancel(asked[node.id], force=True)
            findings.append(Finding("node", node.label, reason, "see its logs, or take it out of the cluster"))
    return findings, answers


def _seen(node: Node, answer: dict[str, Any], folder: Folder, shared: Folder) -> Finding:
    """The storage as seen from a node, and back."""
    mend = "mount the same folder there, or give --storage a folder that all nodes share, or a URI (s3://bucket/runs)"
    if answer["storage"]:
        return Finding("storage", node.label, f"{folder.uri} {answer['storage']}", mend)
    try:
        back = shared.read(node.id).decode()
    except OSError:
        back = ""
    if back != node.id:
        return Finding("storage", node.label, f"what it writes to {folder.uri} is not seen here", mend)
    return Finding("storage", node.label, f"{folder.uri} read and written, both ways")


def compare_versions(found: Sequence[Node], answers: dict[str, dict[str, Any]]) -> list[Finding]:
    """One finding a node, with all in which it differs from this process."""
    here, findings = _probe.versions(), []
    for node in found:
        if node.id not in answers:
            continue
        there = answers[node.id]["versions"]
        wrong = [package for package in here if there.get(package) != here[package]]
        if not wrong:
            findings.append(Finding("versions", node.label, ", ".join(f"{p} {v}" for p, v in here.items())))
            continue
        result = ", ".join(f"{p} {there.get(p, 'missing')} and here {here[p]}" for p in wrong)
        mend = "install the same there" if wrong != ["raydeck"] else "install the same raydeck there, or use submit"
        findings.append(Finding("versions", node.label, result, mend))
    return findings


def on_nodes(call: Callable[[], Any]) -> dict[str, Any]:
    """Call a function on every node, without waiting; returns a reference to each answer by the node's id."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(call)
    there = [(node.id, NodeAffinitySchedulingStrategy(node.id, soft=False)) for node in nodes()]
    return {node: task.options(scheduling_strategy=strategy).remote() for node, strategy in there}


def answers(asked: dict[str, Any], seconds: float = 10) -> dict[str, Any]:
    """What :func:`on_nodes` has asked for, of the nodes that answer within that time."""
    import ray

    ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    found = {}
    for node, reference in asked.items():
        with suppress(ray.exceptions.RayError):  # it is late, or its node is gone
            found[node] = ray.get(reference, timeout=0.1)
    return found


class Claims:
    """Placement groups for workers, which show whether there is room for them, and an autoscaler what is wanted.

    Args:
        each: Resources of a worker.
        groups: Workers of each group; those of one group are placed together, or none of them.
    """

    def __init__(self, each: dict[str, float], groups: Sequence[int]) -> None:
        from ray.util.placement_group import placement_group

        self.sizes, self.groups = groups, [placement_group([each] * size, strategy="PACK") for size in groups]

    def met(self) -> list[int]:
        """Workers of each group that there is room for: all of its own, or none."""
        from ray.util.placement_group import placement_group_table

        told = [placement_group_table(group).get("state") for group in self.groups]
        return [size if state == "CREATED" else 0 for size, state in zip(self.sizes, told, strict=True)]

    def release(self) -> None:
        from ray.util.placement_group import remove_placement_group

        for group in self.groups:
            remove_placement_group(group)


def wait_for_room(placement: Placement, stopped: Callable[[], bool] = lambda: False) -> int:
    """Wait until a placement's workers can be placed, as Ray Train will place them.

    Args:
        placement: A placement that has been decided.
        stopped: Whether to wait no longer.

    Returns:
        How many there is room for: of a range not just the fewest, if others find room within ``MORE_SECONDS``. 0 if
        stopped.

    Raises:
        ValueError: They cannot within ``placement_timeout``; names what is wanted and what is free.
    """
    fewest, most, each = placement.fewest, placement.most, bundle(placement)
    start, found_at, told = time.monotonic(), math.inf, False
    claims = Claims(each, [fewest] + [1] * (most - fewest))
    try:
        while not stopped():
            first, *others = claims.met()
            waited, found = time.monotonic() - start, first + sum(others)
            if first:
                found_at = min(found_at, waited)
                if found >= min(most, room(nodes(), each)) or waited > found_at + MORE_SECONDS:
                    return found
            elif waited >= 60 * placement.placement_timeout:
                raise ValueError(not_placed(placement))
            elif waited > TELL_SECONDS and not told:
                told = True
                console.say(
                    f"waiting for {wanted(placement)}: {available()} (at most {placement.placement_timeout:g} min)"
                )
            time.sleep(min(0.2, 6 * placement.placement_timeout))
        return 0
    finally:
        claims.release()


def not_placed(placement: Placement) -> str:
    """The line about a run whose workers found no room in time."""
    return (
        f"no room on the cluster within {placement.placement_timeout:g} min: wanted {wanted(placement)}, "
        f"{available()}; ask for less, wait for others to end, or raise --placement-timeout"
    )


def wanted(placement: Placement) -> str:
    each = " and ".join(f"{count:g} {kind}{'s' if count != 1 else ''}" for kind, count in bundle(placement).items())
    return f"{placement.workers} worker{'s' if placement.most > 1 else ''} of {each}"


def available() -> str:
    """What is free of CPUs and GPUs on each node: room in sum is no room for a worker."""
    import ray

    free, told = ray._private.state.available_resources_per_node(), []
    for node in nodes():
        kinds = [kind for kind in ("CPU", "GPU") if node.resources.get(kind)]
        of_each = [f"{free.get(node.id, {}).get(kind, 0):g} of {node.resources[kind]:g} {kind}s" for kind in kinds]
        told.append(f"{' and '.join(of_each) or 'nothing'} on {node.label}")
    return f"available {', '.join(told)}"


def _nodes(count: int) -> str:
    return f"{count} node{'s' if count > 1 else ''}"
