"""The interface that collectives use is the one that holds the node's address; test_two_nodes.py shows it in use."""

import os

import pytest

from cluster.network import LOOPBACK, interface_of, use_interface

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
NOBODYS = "192.0.2.7"  # reserved for documentation


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back
        del os.environ[name]


def chosen():
    return [os.environ.get(name) for name in VARIABLES]


def test_an_address_has_an_interface_or_none():
    assert interface_of(LOOPBACK) in ("lo", "lo0")
    assert interface_of(NOBODYS) == ""


def test_within_a_machine_loopback_is_taken_and_nccl_left_alone():
    name = use_interface(LOOPBACK)
    assert chosen() == [name, None]


def test_an_address_that_no_interface_holds_sets_nothing():
    assert use_interface(NOBODYS) == ""
    assert chosen() == [None, None]


def test_what_the_user_has_set_stays():
    os.environ["GLOO_SOCKET_IFNAME"] = "ib0"
    use_interface(LOOPBACK)
    assert chosen() == ["ib0", None]
