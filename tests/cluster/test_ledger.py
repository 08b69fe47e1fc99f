"""What a sweep remembers of its trials, which it ranks first, and which checkpoints it drops."""

import json

from cluster.folder import Folder
from cluster.ledger import Ledger, Record


def ledger(folder, mode="min", seeds=1, keep=0, spent=0.0):
    return Ledger(Folder(str(folder)), mode, seeds=seeds, keep=keep, spent=spent)


def test_records_are_found_again_and_a_trial_killed_before_its_record_starts_anew(tmp_path):
    first = ledger(tmp_path)
    whole = Record("0001", {"model.lr": 0.1}, "finished", best=0.5, epochs=3, until=40.0, values={"val/loss": 0.5})
    first.put(whole)
    first.put(Record("0002", {"model.lr": 0.2}, "running"))
    (tmp_path / "trials" / "0003" / "checkpoints").mkdir(parents=True)
    again = ledger(tmp_path)
    assert again.records == {"0001": whole, "0002": Record("0002", {"model.lr": 0.2}, "running")}
    assert 40 <= again.elapsed() < 50  # the time of earlier starts counts
    assert json.loads((tmp_path / "trials" / "0001" / "trial.json").read_text())["best"] == 0.5


def test_the_best_comes_first_and_numbers_that_are_none_do_not_count(tmp_path):
    for mode, order in (("min", ["b", "a"]), ("max", ["a", "b"])):
        book = ledger(tmp_path / mode, mode)
        for name, best in (("a", 0.5), ("b", 0.25), ("c", float("nan")), ("d", None), ("e", float("inf"))):
            book.put(Record(name, {}, "finished", best=best))
        assert [record.trial for record in book.ranked()] == order


def test_a_trial_with_all_its_seeds_goes_before_a_better_one_that_was_stopped_early(tmp_path):
    book = ledger(tmp_path, seeds=2)
    book.put(Record("0001", {}, "stopped early", best=0.1))
    book.put(Record("0002", {}, "finished", best=0.4, scores=[0.3, 0.5]))
    book.put(Record("0003", {}, "finished", best=0.3, scores=[0.3, 0.3]))
    assert [record.trial for record in book.ranked()] == ["0003", "0002", "0001"]


def test_only_the_best_ended_trials_keep_their_checkpoints_and_none_that_may_go_on_loses_them(tmp_path):
    book = ledger(tmp_path, seeds=2, keep=2)
    standing = [
        ("0001", "finished", 0.4), ("0002", "running", 0.9), ("0003", "out of time", 0.8), ("0004", "finished", 0.3),
        ("0005", "failed", None), ("0006", "stopped early", 0.7), ("0007", "paused", 0.6), ("0008", "finished", 0.1),
    ]  # fmt: skip
    for name, status, best in standing:
        for part in (name, f"{name}/seed-1"):
            (tmp_path / "trials" / part / "checkpoints" / "step-000000001").mkdir(parents=True)
        (tmp_path / "trials" / name / "metrics.csv").write_text("epoch\n")
        book.put(Record(name, {}, status, best=best, scores=[best or 1.0] * 2 if status == "finished" else []))
    kept = {path.parent.relative_to(tmp_path / "trials").as_posix() for path in tmp_path.rglob("checkpoints")}
    trials = ["0002", "0003", "0004", "0007", "0008"]
    assert kept == {*trials, *(f"{name}/seed-1" for name in trials)}
    assert len(list(tmp_path.rglob("metrics.csv"))) == 8  # what was measured stays
