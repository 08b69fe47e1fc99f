"""What every workload promises, found by discovery: a new one is tested by existing."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from two_ranks import run as run_two_ranks

import workloads
from cluster import spaces
from cluster.building import Builder
from cluster.checkpoints import WEIGHTS
from cluster.flags import Flags
from cluster.folder import Folder
from cluster.placement import Placement, RunFlags, Saving, Search
from cluster.runs import Run
from cluster.session import LocalSession
from cluster.worker import Job, fit
from workloads._evaluate import evaluate, predict, restore
from workloads._machine import inspect
from workloads._spec import nearest

ROOT = Path(__file__).resolve().parent.parent
NAMES = workloads.names()
each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The result, run and config of a workload's smoke run, trained once."""
    done = {}

    def run(name):
        if name not in done:
            config = workloads.load(name).config(workloads.load(name).smoke)
            directory = str(tmp_path_factory.mktemp("runs") / name)
            job = Job(workload=name, config=config, directory=directory, placement=Placement(cpus_per_worker=1))
            done[name] = fit(job, LocalSession()), Run(Folder(directory)), config
        return done[name]

    return run


@each
def test_four_files_one_stem(name):
    assert (ROOT / "tune_spaces" / f"{name}.py").exists()
    module = workloads.load(name).model.__module__
    assert (ROOT / (module.replace(".", "/") + ".py")).exists()
    assert (ROOT / "tests" / "lightning_modules" / f"test_{module.rpartition('.')[2]}.py").exists()


@each
def test_its_file_says_what_it_does_and_what_it_reached(name):
    row = workloads.describe(name)
    assert all(row[key] for key in ("summary", "task", "architecture", "data", "metric"))
    assert re.search(r"\d\.\d+.*raydeck train " + name, row["result"]), "the measured result with its command"


@each
def test_every_key_is_documented(name):
    parser = Flags("train", workloads.load(name), {"": [RunFlags, Placement, Search], "checkpoint.": [Saving]}).parser
    keys = [a for a in parser._actions if a.option_strings and a.dest not in ("help", "print_shtab")]
    assert len(keys) > 30
    assert [a.dest for a in keys if not (a.help or "").strip()] == []


@each
def test_a_config_survives_yaml(name):
    workload = workloads.load(name)
    config = workload.config(workload.smoke)
    layer = yaml.safe_load(workload.to_yaml(config))
    assert layer.pop("workload") == name
    assert workload.config(layer) == config


@each
def test_unknown_mistyped_and_linked_keys_are_refused(name):
    workload = workloads.load(name)
    for key in workload.links:
        with pytest.raises(ValueError, match="decided by the data"):
            workload.config({f"model.{key}": 1})
    with pytest.raises(ValueError, match=r"did you mean 'trainer\.max_epochs'"):
        workload.config({"trainer.max_epoch": 1})
    with pytest.raises(ValueError, match=r"trainer\.max_epochs: expected a whole number, got 'many'"):
        workload.config({"trainer.max_epochs": "many"})
    assert nearest("max_epochs", workload.keys()) == "trainer.max_epochs"


@each
def test_samples_of_its_space_are_valid_and_can_be_built(name):
    workload = workloads.load(name)
    config = workload.config(workload.smoke)
    data = workload.build_data(config, inspect("cpu", "32", 1))
    data.setup("fit")
    space = spaces.load(workload)
    builder = Builder(workload, config, space, workload.decided(data))
    random = np.random.RandomState(0)
    assert [builder.fault(space.draw(random)) for _ in range(20)] == [None] * 20


@each
def test_a_smoke_run_logs_its_monitor_and_its_result(name, smoke):
    workload = workloads.load(name)
    result, run, _ = smoke(name)
    assert result["status"] == "finished"
    assert np.isfinite(result["monitor"]["best"]) and result["monitor"]["name"] == workload.monitor
    assert result["metric"] in result["test"]
    assert result["baselines"] and all(np.isfinite(value) for value in result["baselines"].values())
    for key in ("num_parameters", "epochs", "steps", "seconds", "examples_per_second"):
        assert result[key] > 0
    header = run.folder.read("metrics.csv").decode().splitlines()[0].split(",")
    assert {"epoch", "step", "seconds", "train/loss", workload.monitor} <= set(header)


@each
def test_a_reloaded_checkpoint_gives_the_run_s_own_test_metrics_and_equal_outputs(name, smoke, tmp_path, sample_inputs):
    workload = workloads.load(name)
    result, run, config = smoke(name)
    machine = inspect("cpu", config["trainer"]["precision"], 1)
    with run.checkpoints(workload.mode).best() as (_, path):
        model, data = restore(workload, config, path / WEIGHTS, machine)
        again, _ = restore(workload, config, path / WEIGHTS, machine)
    assert evaluate(model, data, machine, whole=False) == result["test"]
    reader = workload.reader_of(data)
    asked = reader.encode(sample_inputs(type(reader).__name__, tmp_path)).examples
    batch = data.on_after_batch_transfer(asked.gather(asked.plan(4, seed=0, epoch=0, shuffle=False)[0]), 0)
    for ours, theirs in zip(outputs(model, batch), outputs(again, batch), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def outputs(model, batch):
    """What ``predict_step`` answers; step by step, where it yields."""
    found = model.eval().predict_step(batch, 0)
    return [found] if isinstance(found, dict) else list(found)


@each
def test_predict_answers_in_a_person_s_words(name, smoke, tmp_path, sample_inputs):
    workload = workloads.load(name)
    _, run, config = smoke(name)
    machine = inspect("cpu", "32", 1)
    with run.checkpoints(workload.mode).best() as (_, path):
        model, data = restore(workload, config, path / WEIGHTS, machine)
    reader = workload.reader_of(data)
    paths = sample_inputs(type(reader).__name__, tmp_path)
    inputs, answers = predict(model, data, reader, machine, paths)
    assert len(answers) == len(inputs.names) >= 2
    assert all(answer["input"] for answer in answers)
    words = {"label", "value", "translation", "text", "error", "brightness", "return"}
    assert all(words & answer.keys() for answer in answers)
    picture = tmp_path / f"sheet{reader.drawn_as}"
    assert reader.picture(inputs, answers, picture) == picture.exists()


TWO_RANKS = """
import workloads

for name in sys.argv[2:]:
    workload = workloads.load(name)
    config = workload.config(workload.smoke)
    job = worker.Job(workload=name, config=config, directory=f"{sys.argv[1]}/{name}",
                     placement=Placement(cpus_per_worker=1), baselines=False)
    result = worker.fit(job, Gloo())
    with open(f"{sys.argv[1]}/{name}-{os.environ['RANK']}.json", "w") as file:
        json.dump(result, file)
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """All smoke runs by one pair of gloo processes, without Ray: two folders of results."""
    folder = tmp_path_factory.mktemp("ranks")
    run_two_ranks(TWO_RANKS, str(folder), *NAMES, timeout=600)
    return folder


@each
@pytest.mark.timeout(700)  # the first one trains all workloads
def test_two_workers_agree_with_each_other_and_with_one(name, two_ranks):
    workload = workloads.load(name)
    config = workload.config(workload.smoke)
    machine = inspect("cpu", config["trainer"]["precision"], 1)
    ranks = [yaml.safe_load((two_ranks / f"{name}-{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["world_size"] == 2
    assert ranks[0]["test"] == ranks[1]["test"] and ranks[0]["monitor"] == ranks[1]["monitor"]
    run = Run(Folder(str(two_ranks / name)))
    with run.checkpoints(workload.mode).best() as (_, path):
        model, data = restore(workload, config, path / WEIGHTS, machine)
    alone = evaluate(model, data, machine, whole=False)
    assert alone.keys() == ranks[0]["test"].keys()
    for key, value in alone.items():  # each example counted once: the two ranks' sums are the one's
        assert value == pytest.approx(ranks[0]["test"][key], rel=1e-5, abs=1e-6), key
