"""Two processes that train together by gloo, without Ray."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SESSION = """
import json, os, sys, torch
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from cluster.placement import Placement
from cluster.session import LocalSession, Stopped, ddp_options
from cluster import worker

class Gloo(LocalSession):
    def trainer_arguments(self, accelerator, find_unused_parameters):
        strategy = DDPStrategy(process_group_backend="gloo", **ddp_options(find_unused_parameters))
        return {"accelerator": "cpu", "devices": 2, "strategy": strategy, "plugins": [TorchElasticEnvironment()]}
"""
"""What a script of both ranks begins with."""


def run(script: str, *arguments: str, timeout: float = 240) -> None:
    """Run ``SESSION`` and a script as rank 0 and as rank 1, and check that both end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ, "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SESSION + script, *arguments],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
