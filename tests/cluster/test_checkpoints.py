"""A checkpoint counts only once complete; a torn or altered one is passed over with a warning."""

import shutil

import pytest

from cluster.checkpoints import Checkpoints
from cluster.folder import Folder


def commit(store, step, score=None, content=b"weights"):
    with store.staging() as staged:
        (staged / "model.ckpt").write_bytes(content * 100 + str(step).encode())
        return store.commit(staged, epoch=step // 10, step=step, score=score)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    if request.param == "local":
        yield Checkpoints(Folder(str(tmp_path / "run" / "checkpoints")), "min")
    else:
        folder = Folder(f"memory://{tmp_path.name}/checkpoints")
        yield Checkpoints(folder, "min")
        if folder.exists():
            folder.fs.rm(folder.path, recursive=True)


def names(store):
    return [c.name for c in store.committed()]


def test_the_best_and_the_last_two_are_kept(store):
    for step, score in ((10, 0.5), (20, 0.2), (30, 0.4), (40, 0.3), (50, 0.6)):
        commit(store, step, score)
    assert names(store) == ["step-000000020", "step-000000040", "step-000000050"]
    with store.best() as found:
        assert found[0].score == 0.2
    with store.latest() as found:
        assert (found[0].step, (found[1] / "model.ckpt").read_bytes()) == (50, b"weights" * 100 + b"50")


def test_a_higher_score_is_better_under_max(tmp_path):
    store = Checkpoints(Folder(str(tmp_path)), "max")
    for step, score in ((1, 0.5), (2, 0.9), (3, 0.1)):
        commit(store, step, score)
    assert [c.step for c in store.ranked()] == [2, 3]  # 1 is neither the best nor one of the last two


def test_without_scores_the_last_one_counts_as_best(store):
    commit(store, 1)
    commit(store, 2)
    with store.best() as found:
        assert found[0].step == 2


def test_none_when_there_are_none(store):
    with store.latest() as found:
        assert found is None


def truncate(folder):
    file = folder / "model.ckpt"
    file.write_bytes(file.read_bytes()[:-5])


def empty(folder):
    (folder / "model.ckpt").write_bytes(b"")


def flip_a_bit(folder):
    content = bytearray((folder / "model.ckpt").read_bytes())
    content[50] ^= 1
    (folder / "model.ckpt").write_bytes(content)


def delete_half(folder):
    (folder / "model.ckpt").unlink()


def delete_manifest(folder):
    (folder / "manifest.json").unlink()


def tear_manifest(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


FAULTS = {truncate: "bytes instead of", empty: "0 bytes", flip_a_bit: "SHA-256", delete_half: "missing",
          delete_manifest: "no manifest", tear_manifest: "manifest cannot be read"}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_damaged_newest_checkpoint_is_warned_of_and_the_one_before_is_used(tmp_path, capsys, fault):
    store = Checkpoints(Folder(str(tmp_path)), "min")
    commit(store, 10, 0.3)
    commit(store, 20, 0.2)
    fault(tmp_path / "step-000000020")
    with store.latest() as found:
        assert found[0].step == 10
    warning = capsys.readouterr().err
    assert "step-000000020 is not used" in warning and FAULTS[fault] in warning
    with store.best() as found:
        assert found[0].step == 10
    capsys.readouterr()
    commit(store, 20, 0.2)  # the run gets there again: the torn one makes room
    with store.latest() as found:
        assert found[0].step == 20


def test_staging_of_a_killed_process_is_cleared_away(tmp_path):
    store = Checkpoints(Folder(str(tmp_path)), "min")
    (tmp_path / ".staging-dead").mkdir()
    (tmp_path / ".staging-dead" / "model.ckpt").write_bytes(b"half")
    commit(store, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000001"]


def test_a_remote_checkpoint_without_its_manifest_does_not_count(tmp_path, capsys):
    folder = Folder(f"memory://{tmp_path.name}")
    store = Checkpoints(folder, "min")
    commit(store, 1)
    commit(store, 2)
    folder.fs.rm(f"{folder.path}/step-000000002/manifest.json")  # as if the upload had been cut
    with store.latest() as found:
        assert found[0].step == 1
    assert "no manifest" in capsys.readouterr().err
    shutil.rmtree(tmp_path)
    folder.fs.rm(folder.path, recursive=True)
