"""Environment steps a second of ``raydeck train dqn`` beside stable-baselines3's DQN, in one run.

    pip install -e '.[bench]'
    python tests/benchmarks/dqn.py

Both learn CartPole-v1 by the same plain DQN: two hidden layers of 256, updates of 64 steps, 128 of them every 256
steps, the same exploration, learning rate and number of threads. Each variant runs in a process of its own, the
variants in turn, and of each the median counts; training alone is timed, without evaluation. raydeck also saves after
every 1,024 steps. What each has learned is told as well: the return of 100 episodes by the greedy policy at the end.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS, STEPS, FIRST, THREADS, SEED = 5, 20_480, 2048, 1, 0
EPOCH = 1024


def raydeck(num_envs=8):
    """Steps/s from the run's own metrics.csv, and the return in the end."""
    import workloads
    from cluster.placement import Placement
    from cluster.session import LocalSession
    from cluster.worker import Job, fit

    workload = workloads.load("dqn")
    epochs = STEPS // EPOCH
    config = workload.config(
        {
            "seed": SEED, "data.n_step": 1, "model.double": False, "data.num_envs": num_envs,
            "trainer.max_epochs": epochs, "trainer.check_val_every_n_epoch": epochs,
            "model.exploration_fraction": 8000 / STEPS,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        job = Job(workload="dqn", config=config, directory=f"{folder}/run", baselines=False,
                  placement=Placement(cpus_per_worker=THREADS))  # fmt: skip
        fit(job, LocalSession())
        rows = list(csv.DictReader(Path(folder, "run", "metrics.csv").read_text().splitlines()))
    first, last = (rows[k] for k in (1, -2))
    steps, seconds = (float(last[name]) - float(first[name]) for name in ("env_steps", "seconds"))
    return {"steps/s": steps / seconds, "return": float(rows[-1]["val/return"])}


def raydeck_one():
    """The same with one environment, as stable-baselines3 has."""
    return raydeck(num_envs=1)


def baselines():
    """Steps/s of stable-baselines3."""
    import time

    import gymnasium
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(THREADS)

    class Clock(BaseCallback):
        began = 0.0

        def _on_step(self):
            if self.n_calls == FIRST:
                self.began = time.monotonic()
            return True

    clock = Clock()
    model = DQN(
        "MlpPolicy", "CartPole-v1", learning_rate=2.3e-3, batch_size=64, buffer_size=100_000, learning_starts=1000,
        gamma=0.99, target_update_interval=10, train_freq=256, gradient_steps=128,
        exploration_fraction=8000 / STEPS, exploration_final_eps=0.04, policy_kwargs={"net_arch": [256, 256]},
        seed=SEED, device="cpu",
    )  # fmt: skip
    model.learn(STEPS, callback=clock)
    seconds = time.monotonic() - clock.began
    mean, _ = evaluate_policy(model, gymnasium.make("CartPole-v1"), n_eval_episodes=100, warn=False)
    return {"steps/s": (STEPS - FIRST) / seconds, "return": float(mean)}


VARIANTS = {"raydeck": raydeck, "raydeck_one": raydeck_one, "stable-baselines3": baselines}


def main():
    if len(sys.argv) > 2:
        print(json.dumps(VARIANTS[sys.argv[2]]()))
        return
    found = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS):
        for name in VARIANTS:
            out = subprocess.check_output([sys.executable, __file__, "one", name], text=True)
            found[name].append(json.loads(out.splitlines()[-1]))
            print(name, found[name][-1], flush=True)
    rates = {name: statistics.median(run["steps/s"] for run in runs) for name, runs in found.items()}
    theirs = rates["stable-baselines3"]
    for name, rate in rates.items():
        print(f"{name}: {rate:,.0f} steps/s, {rate / theirs:.2f}x, returns {[run['return'] for run in found[name]]}")


if __name__ == "__main__":
    main()
