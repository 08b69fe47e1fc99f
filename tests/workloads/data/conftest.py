"""Fixtures of the tests of data modules."""

import pytest

from workloads.data.images import Images


@pytest.fixture
def images(tmp_path):
    """Makes a data module whose cache lies in the test's own folder."""

    def make(source, **keys) -> Images:
        return Images(str(source), **{"cache_dir": str(tmp_path / "cache"), **keys})

    return make
