"""How the tests themselves are shared by processes."""

import pytest


def test_tests_carry_their_group_in_their_name(request):
    """With pytest 9.2, pytest-xdist 3.8 can no longer name groups there, says nothing, and groups nothing."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not shared by groups: see `make test`")
    assert request.node.nodeid.endswith(f"@{request.node.path}")
