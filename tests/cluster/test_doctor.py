"""Preflight and doctor, on a real cluster of two nodes, with faults put into it."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from cluster import doctor, preflight
from cluster.placement import Placement
from cluster.preflight import Finding, Node, fit, room

CAUSES = """
import json, sys
from cluster import _probe, elastic, preflight
from cluster.doctor import diagnose
from cluster.folder import Folder
from cluster.placement import Placement
from cluster.runs import Run
from cluster.train import connected

here, marked = sys.argv[1:3]

def main():
    placed = Placement(workers=2, cpus_per_worker=2, gpus_per_worker=0.0, placement_timeout=0.02)
    def refused(act, *given):
        try:
            act(*given)
        except ValueError as error:
            return str(error)
        return ""
    def well(node, storage):
        return _probe.examine(node, storage)
    def other_version(node, storage):
        answer = _probe.examine(node, storage)
        return answer | {"versions": answer["versions"] | {"torch": "1.0"}}
    def blind(node, storage):
        return _probe.examine(node, storage and f"{storage}-elsewhere")
    def broken(node, storage):
        raise OSError("the disk is gone")
    with connected(Placement()):
        told = {
            "good": refused(preflight.quick, placed, f"{here}/run", well),
            "versions": refused(preflight.quick, placed, f"{here}/run", other_version),
            "blind": refused(preflight.quick, placed, f"{here}/run", blind),
            "broken": refused(preflight.quick, placed, f"{here}/run", broken),
            "unwritable": [vars(f) for f in diagnose(Placement(), f"{here}/file/runs")],
            "free": refused(preflight.wait_for_room, placed),
        }
        def late(workers, minutes):
            raise TimeoutError
        told["late"] = refused(elastic.keep_going, placed, Run(Folder(f"{here}/r")), lambda: False, late)
        import ray
        holder = ray.util.placement_group([{"CPU": 1}], strategy="PACK")
        assert holder.wait(10)
        told["busy"] = refused(preflight.wait_for_room, placed)
        print(json.dumps(told), flush=True)
        open(marked, "w").close()
        input()

main()
"""


@pytest.fixture(scope="module")
def joined(local_cluster, tmp_path_factory):
    """The environment of the cluster."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | local_cluster["environment"]


@pytest.fixture(scope="module")
def caused(joined, tmp_path_factory):
    """What each fault led to, told by a program that goes on holding a CPU of one node."""
    folder = tmp_path_factory.mktemp("caused")
    (folder / "file").write_text("")
    (folder / "causes.py").write_text(CAUSES)
    marked = folder / "ready"
    with subprocess.Popen(
        [sys.executable, "-c", CAUSES, str(folder), str(marked)], env=joined,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        try:
            line = program.stdout.readline()
            assert line, program.stderr.read()
            yield json.loads(line)
        finally:
            program.communicate("\n", timeout=30)


@pytest.mark.ray
def test_a_good_cluster_is_well_and_left_as_it_was(joined, raydeck):
    environment = {key: joined[key] for key in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH")}  # the mode is found out
    out, err = raydeck("doctor", "--workers", "2", "--storage", str(raydeck.folder / "runs"), **environment)
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["check", "where", "result", "mend"]
    assert all(not row[3] for row in rows[1:]), out
    checks = [row[0] for row in rows[1:]]
    assert checks.count("storage") == checks.count("versions") == checks.count("disk of Ray") == 2
    assert {"cluster", "access", "workers", "disk of storage", "package", "token"} < set(checks)
    assert err.endswith("all is well\n")
    assert list(raydeck.folder.iterdir()) == []


@pytest.mark.ray
def test_each_fault_stops_a_run_with_one_line(caused):
    assert caused["good"] == caused["free"] == ""
    assert caused["versions"].startswith("versions, ")
    assert "torch 1.0 and here" in caused["versions"]
    assert "does not see what the driver wrote; mount the same folder there" in caused["blind"]
    assert "the disk is gone" in caused["broken"]
    assert not any("\n" in caused[key] for key in ("versions", "blind", "broken"))


@pytest.mark.ray
def test_unwritable_storage_is_a_fault_of_the_doctors(caused):
    faults = [finding for finding in caused["unwritable"] if finding["mend"]]
    assert [finding["check"] for finding in faults] == ["storage"]
    assert faults[0]["result"].endswith("cannot be written (Not a directory)")
    assert faults[0]["mend"] == "name a folder that can"


@pytest.mark.ray
def test_no_room_is_said_with_what_is_wanted_and_what_is_free(caused, joined, raydeck):
    for told in (caused["busy"], caused["late"]):
        assert told.startswith("no room on the cluster within 0.02 min: wanted 2 workers of 2 CPUs, available ")
        assert "--placement-timeout" in told
    assert "1 of 2 CPUs on " in caused["busy"]
    assert "2 of 2 CPUs on " in caused["busy"]
    environment = {key: value for key, value in joined.items() if key.startswith("RAY_")}
    flags = ["--smoke", "--workers", "2", "--cpus-per-worker", "2", "--placement-timeout", "0.03"]
    _, err = raydeck("train", "mlp", *flags, code=2, timeout=60, **environment)
    assert "raydeck: no room on the cluster within 0.03 min: wanted 2 workers of 2 CPUs" in err
    assert "Traceback" not in err
    assert not (raydeck.folder / "runs").exists()


def test_a_cluster_that_does_not_answer_is_a_fault(capsys, no_cluster):
    assert doctor.command(["--address", "127.0.0.1:1", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    fault = next(finding for finding in told["findings"] if finding["mend"])
    assert not told["well"]
    assert fault["check"] == "cluster"
    assert fault["result"] == "no Ray cluster answers at 127.0.0.1:1"


def test_room_in_sum_is_no_room_on_a_node():
    found = [Node("a", "a", {"CPU": 3.0, "GPU": 1.0}), Node("b", "b", {"CPU": 1.0}), Node("c", "c", {"CPU": 2.0})]
    assert room(found, {"CPU": 1.0}) == 6
    assert room(found, {"CPU": 2.0}) == 2
    assert room(found, {"CPU": 1.0, "GPU": 0.5}) == 2
    asked = Placement(workers=3)
    # six CPUs by three workers are two each, for which the node with one has no room
    assert fit(asked, replace(asked, cpus_per_worker=2, gpus_per_worker=0.0), found).cpus_per_worker == 1
    strict = replace(asked, cpus_per_worker=2)
    with pytest.raises(
        ValueError, match=r"3 workers of 2 CPUs are asked for, and the cluster's 3 nodes hold 2 of them"
    ):
        fit(strict, replace(strict, gpus_per_worker=0.0), found)


def test_versions_are_compared_with_this_process(monkeypatch):
    here = {"python": "3.11.1", "ray": "2.60.0", "torch": "2.13.0", "raydeck": "code 1"}
    monkeypatch.setattr("cluster._probe.versions", lambda: here)
    found = [Node("a", "A", {}), Node("b", "B", {}), Node("c", "C", {})]
    answers = {"a": {"versions": here}, "b": {"versions": here | {"ray": "2.59.0", "raydeck": "missing"}}}
    well, wrong = preflight.compare_versions(found, answers)
    assert not well.mend
    assert wrong.where == "B"
    assert wrong.result == "ray 2.59.0 and here 2.60.0, raydeck missing and here code 1"


def test_little_disk_is_a_fault():
    gib = 2**30
    assert not doctor.room_on("disk", "A", ("/x", 30 * gib, 100 * gib)).mend
    assert doctor.room_on("disk", "A", ("/x", gib // 2, 2 * gib)).mend
    assert doctor.room_on("disk", "A", ("/x", 4 * gib, 100 * gib)).mend


def test_a_token_that_others_can_read_is_a_fault(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert doctor.token() == [Finding("token", "this machine", "none is set")]
    file = tmp_path / "token"
    file.write_text("secret")
    file.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    (finding,) = doctor.token()
    assert finding.result == f"{file} can be read by others (0644)"
    assert finding.mend == f"chmod 600 {file}"
    file.chmod(0o600)
    assert not doctor.token()[0].mend
