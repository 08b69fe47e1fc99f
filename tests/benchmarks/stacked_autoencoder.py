"""What layers that have learnt without labels are worth. Run by hand:

    python tests/benchmarks/stacked_autoencoder.py [labels ...]      by default 100, 300 and 1000

For each number of labels of MNIST-5k, and for sigmoid and ReLU, the same network is trained with and without
pretraining, on 5 seeds, each of which also draws its own splits and labels; all else is as shipped. Printed are mean
and standard deviation of the test error in per cent, and a paired one-sided t-test over the seeds.
"""

import json
import multiprocessing
import statistics
import sys
import tempfile
import time

SEEDS, LABELS, ACTIVATIONS = range(5), (100, 300, 1000), ("sigmoid", "relu")


def error_of(task):
    """Test error of one run, in per cent, and its seconds."""
    labels, activation, seed, pretrained = task
    import contextlib
    import io

    import workloads
    from cluster.placement import Placement
    from cluster.session import LocalSession
    from cluster.worker import Job, fit

    workload = workloads.load("stacked_autoencoder")
    shipped = workload.config()
    overrides = {
        "seed": seed, "data.split_seed": seed, "data.num_labelled": labels, "model.activation": activation,
        "trainer.sample_every_n_steps": 0,
    }  # fmt: skip
    if not pretrained:
        overrides["data.unlabelled_epochs"] = 0
        overrides["trainer.max_epochs"] = shipped["trainer"]["max_epochs"] - shipped["data"]["unlabelled_epochs"]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        job = Job(workload="stacked_autoencoder", config=workload.config(overrides), directory=f"{folder}/run",
                  placement=Placement(cpus_per_worker=1), baselines=False)  # fmt: skip
        result = fit(job, LocalSession())
    return 100 * (1 - result["test"]["accuracy"]), result["seconds"]


def main():
    from scipy.stats import ttest_rel

    began = time.monotonic()
    labels = [int(word) for word in sys.argv[1:]] or LABELS
    tasks = [(n, a, seed, p) for n in labels for a in ACTIVATIONS for p in (True, False) for seed in SEEDS]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        errors = dict(zip(tasks, pool.map(error_of, tasks, chunksize=1), strict=True))
    print(f"{'labels':>6} {'units':>8} {'pretrained':>16} {'without':>16} {'better by':>10} {'p':>8}")
    for n in labels:
        for a in ACTIVATIONS:
            ours, theirs = ([errors[n, a, seed, p][0] for seed in SEEDS] for p in (True, False))
            told = [f"{statistics.mean(x):.2f} ± {statistics.stdev(x):.2f}" for x in (ours, theirs)]
            better = statistics.mean(theirs) - statistics.mean(ours)
            p = ttest_rel(ours, theirs, alternative="less").pvalue
            print(f"{n:>6} {a:>8} {told[0]:>16} {told[1]:>16} {better:>10.2f} {p:>8.4f}")
            print(json.dumps({"pretrained": ours, "without": theirs}))
    print(
        f"{sum(seconds for _, seconds in errors.values()):.0f} s of training, {time.monotonic() - began:.0f} s in all"
    )


if __name__ == "__main__":
    main()
