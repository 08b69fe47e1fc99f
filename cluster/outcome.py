"""What came of a sweep: ``trials.csv``, ``best.yaml``, ``sweep.png``, the importance of each choice, and the table."""

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import workloads
from cluster import console
from cluster.ledger import Ledger, Record
from cluster.runs import Run
from cluster.trial import Sweep
from cluster.tuning import PERTURBATIONS

SHOWN = 10
"""Trials in the printed table."""


def write(run: Run, sweep: Sweep, ledger: Ledger) -> None:
    """Write down what a sweep has found so far."""
    workload = workloads.load(sweep.job.workload)
    best = ledger.best()
    run.folder.write("trials.csv", as_csv(sweep, ledger).encode())
    if best:
        config = sweep.job_of(best.trial, best.point).config
        run.folder.write("best.yaml", workload.to_yaml(config).encode())
    records = list(ledger.records.values())
    placement = sweep.job.placement
    shares = importances(records)
    run.write_result(
        monitor={"name": workload.monitor, "mode": workload.mode, "best": best and best.best},
        best_trial=best and best.trial,
        num_trials=len(records),
        num_failed=ledger.count("failed"),
        num_stopped_early=ledger.count("stopped early"),
        num_out_of_time=ledger.count("out of time"),
        num_perturbations=_num_perturbations(run),
        seeds=sweep.search.seeds,
        seconds=round(ledger.elapsed(), 1),
        importance=shares,
        improvements=improvements(records, workload.mode),
        pareto=[{"trial": r.trial, **r.values} for r in pareto(records, sweep.objectives)],
        workers=placement.workers,
        cpus_per_worker=placement.cpus_per_worker,
    )
    _draw(run, sweep, ledger, shares or {})


def as_csv(sweep: Sweep, ledger: Ledger) -> str:
    """A line a trial, the best first; values of keys as JSON, a key that a trial did not choose left empty."""
    ranked = ledger.ranked()
    rows = []
    for record in ranked + [r for r in ledger.records.values() if r.score is None]:
        rows.append(
            {
                "trial": record.trial,
                "status": record.status,
                "best": "" if record.best is None else record.best,
                **({"std": deviation(record), "seeds": len(record.scores) or 1} if sweep.search.seeds > 1 else {}),
                **(record.values if sweep.search.objectives else {}),
                "epochs": record.epochs,
                "seconds": record.seconds,
                "minutes": round(record.until / 60, 2),
                **{key: json.dumps(value) for key, value in sweep.space.overrides(record.point).items()},
                "error": record.error or "",
            }
        )
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*(c for c in columns if c != "error"), "error"], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def deviation(record: Record) -> float | None:
    """Standard deviation over seeds; None for a single one."""
    return statistics.stdev(record.scores) if len(record.scores) > 1 else None


def importances(records: Sequence[Record]) -> dict[str, float] | None:
    """Share of each choice in what scores differ by; None without the packages it takes."""
    from cluster.importance import importance

    scored = [record for record in records if record.score is not None]
    try:
        return importance([record.point for record in scored], [record.score for record in scored])
    except ValueError as error:
        console.warn(f"no importance of the choices: {error}")
        return None


def improvements(records: Sequence[Record], mode: str) -> list[dict[str, Any]]:
    """Each trial that was better than all that ended before it, in the order in which they ended."""
    found: list[dict[str, Any]] = []
    ended = sorted((r for r in records if r.score is not None), key=lambda r: r.until)
    for number, record in enumerate(ended, start=1):
        better = not found or (record.score < found[-1]["best"] if mode == "min" else record.score > found[-1]["best"])
        if better:
            minutes = round(record.until / 60, 2)
            found.append({"trials": number, "minutes": minutes, "trial": record.trial, "best": record.score})
    return found


def pareto(records: Sequence[Record], objectives: Mapping[str, str]) -> list[Record]:
    """Trials that no other beats in one objective without losing in another; in the order of the first objective."""
    if len(objectives) < 2:
        return []
    signs = [1 if mode == "min" else -1 for mode in objectives.values()]

    def place(record: Record) -> list[float]:
        return [sign * record.values[name] for sign, name in zip(signs, objectives, strict=True)]

    whole = sorted((r for r in records if r.ended and set(objectives) <= set(r.values)), key=place)

    def beaten(record: Record) -> bool:
        mine = place(record)
        others = (place(other) for other in whole if other is not record)
        return any(all(a <= b for a, b in zip(theirs, mine, strict=True)) and theirs != mine for theirs in others)

    return [record for record in whole if not beaten(record)]


def _num_perturbations(run: Run) -> int:
    try:
        return len(run.folder.read(PERTURBATIONS).decode().splitlines()) - 1
    except FileNotFoundError:
        return 0


def _draw(run: Run, sweep: Sweep, ledger: Ledger, shares: Mapping[str, float]) -> None:
    import tempfile
    from pathlib import Path

    from cluster.sweep_picture import draw

    workload = workloads.load(sweep.job.workload)
    records = sorted(ledger.records.values(), key=lambda record: record.trial)
    if not records:
        return
    with tempfile.TemporaryDirectory(prefix="raydeck-") as scratch:
        path = Path(scratch) / "sweep.png"
        try:
            draw(
                path,
                title=f"{run.folder.name}: {workload.name}, {len(records)} trials in "
                f"{console.duration(ledger.elapsed())}",
                monitor=workload.monitor,
                mode=workload.mode,
                points=[record.point for record in records],
                scores=[record.score for record in records],
                statuses=[r.status if r.ended else "unfinished" for r in records],
                minutes=[record.until / 60 for record in records],
                importances=shares,
                bands=[deviation(record) for record in records],
            )
        except ValueError as error:
            console.warn(f"no picture of the sweep: {error}")
            return
        run.folder.write(path.name, path.read_bytes())


def present(run: Run, as_json: bool) -> None:
    """The best trials, what mattered, and what to do next."""
    result = run.result()
    if as_json:
        print(json.dumps({"sweep": str(run.folder), **result}, indent=1))
        return
    rows = list(csv.DictReader(run.folder.read("trials.csv").decode().splitlines()))
    name = result["monitor"]["name"]
    best = [(row["trial"], row["status"], row["epochs"], _score(row), _settings(row)) for row in rows[:SHOWN]]
    console.table(f"best of {len(rows)} trials by {name}", ("trial", "status", "epochs", name, "settings"), best)
    if result["importance"]:
        shares = [(key, f"{share:.0%}") for key, share in result["importance"].items()][:SHOWN]
        print()
        console.table("importance: share of the differences that a choice explains", ("choice", "share"), shares)
    if result["pareto"]:
        columns = list(result["pareto"][0])
        print()
        told = [[_short(str(row[column])) for column in columns] for row in result["pareto"]]
        console.table("Pareto front: none is better in everything", columns, told)
    else:
        steps = [(s["trials"], f"{s['minutes']:.1f}", s["trial"], f"{s['best']:.4g}") for s in result["improvements"]]
        print()
        console.table("best so far", ("after trials", "minutes", "trial", name), steps)
    _conclude(run, result, rows)


def _conclude(run: Run, result: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> None:
    counts = [(result["num_stopped_early"], "stopped early"), (result["num_out_of_time"], "out of time")]
    told = [f"{count} {what}" for count, what in counts if count or what == "stopped early"]
    told.append(f"{result['num_failed']} failed")
    if result["num_perturbations"]:
        told.append(f"{result['num_perturbations']} taken over and altered (perturbations.csv)")
    print(f"\n{result['num_trials']} trials in {console.duration(result['seconds'])}: {', '.join(told)}")
    for row in rows:
        if row["error"]:
            print(f"  {row['trial']} failed: {row['error']}")
    if not result["best_trial"]:
        return
    place = run.folder.short()
    if run.folder.exists("sweep.png"):
        print(f"drawn: {place}/sweep.png")
    workers = f" --workers {result['workers']}" if result["workers"] > 1 else ""
    print(
        f"\nnext:\n  raydeck train {result['workload']} --config {place}/best.yaml{workers} "
        f"--cpus-per-worker {result['cpus_per_worker']}"
    )
    if result["num_perturbations"]:
        print(
            f"  raydeck evaluate {place}/trials/{result['best_trial']}"
            "      its weights: pbt's settings changed as it trained, best.yaml has the last"
        )


def _score(row: Mapping[str, str]) -> str:
    score = _short(row["best"])
    return f"{score} ± {_short(row['std'])} ({row['seeds']})" if row.get("std") else score


def _settings(row: Mapping[str, str]) -> str:
    """What a trial tried, in a line: the keys without the part before the dot, which is clear from the rest."""
    tried = {
        key.partition(".")[2]: _short(value).strip('"')
        for key, value in row.items()
        if key.partition(".")[0] in ("model", "data", "trainer") and value
    }
    return "  ".join(f"{key} {value}" for key, value in tried.items())


def _short(text: str) -> str:
    """A number in a table to four digits."""
    try:
        return text if text.isdigit() else f"{float(text):.4g}"
    except ValueError:
        return text
