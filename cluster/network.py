"""Through which network interface the workers of a run talk to each other.

Left alone, gloo takes the address that the host's name resolves to, which is loopback on many machines and then reaches
nobody. The interface to take is the one that holds the address by which the cluster knows the node.
"""

import importlib
import os
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

LOOPBACK = "127.0.0.1"


def interface_of(address: str) -> str:
    """Name of this machine's interface that holds an IP address; empty if none does, as behind a translated one."""
    import ray  # noqa: F401  brings psutil along

    for name, held in importlib.import_module("psutil").net_if_addrs().items():
        if any(each.address.partition("%")[0] == address for each in held):  # IPv6 may carry %interface
            return name
    return ""


def use_interface(address: str) -> str:
    """Have collectives of this process use the interface that holds an address, unless the user has named others.

    Returns:
        The interface; empty if none holds the address, in which case nothing is set.
    """
    name = interface_of(address)
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        if address != LOOPBACK:  # within a machine NCCL needs no network
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # the very name; without = any that begins so
    return name


def own_address() -> str:
    """The IP address by which the cluster knows this process's node."""
    import ray

    return ray.util.get_node_ip_address()


class Backend(_TorchBackend):
    """Ray Train's process group, over interfaces that are chosen on each worker before it forms."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        addresses = worker_group.execute(own_address)
        for rank, address in enumerate(addresses):
            worker_group.execute_single(rank, use_interface, address if len(set(addresses)) > 1 else LOOPBACK)
        super().on_start(worker_group, backend_config)


class Connection(TorchConfig):
    """Ray Train's settings of the process group, with :class:`Backend`."""

    @property
    def backend_cls(self) -> type[Backend]:
        return Backend
