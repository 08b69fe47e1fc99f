"""Where data comes from, and what becomes of bad rows."""

import socket
import sys
import time

import pytest

from workloads.data._sources import Rejects, hugging_face, load_hub, resolve

EMBEDDED = ["mnist-5k", "digits"]


def test_an_embedded_name_comes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("digits", EMBEDDED) == ("embedded", "digits")
    assert resolve("./digits", EMBEDDED) == ("path", "digits")


def test_hub_names_and_paths(tmp_path):
    assert resolve("hf://ylecun/mnist", EMBEDDED) == ("hub", "ylecun/mnist")
    assert resolve(str(tmp_path), EMBEDDED) == ("path", str(tmp_path))


@pytest.mark.parametrize("source", ["hf://mnist", "hf://", "hf://a/b/c", "hf:///b"])
def test_a_hub_name_has_an_owner_and_a_name(source):
    with pytest.raises(ValueError, match="expected hf://owner/name"):
        resolve(source, EMBEDDED)


def test_a_mistyped_name_is_told_apart_from_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as told:
        resolve("mnist_5k", EMBEDDED)
    assert str(tmp_path / "mnist_5k") in str(told.value)
    assert "nearest: mnist-5k)" in str(told.value)
    assert "\n" not in str(told.value)


def test_an_empty_source_is_not_the_current_folder():
    with pytest.raises(ValueError, match="no ''"):
        resolve("", EMBEDDED)


def test_a_hub_name_without_network_says_so_at_once(monkeypatch):
    hugging_face()  # imported first, so that its import is not timed
    with socket.socket() as server:  # a port that refuses connections, as it is bound but does not listen
        server.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # so that the flag set by load_hub is taken back afterwards
        started = time.perf_counter()
        with pytest.raises(
            ValueError, match="hf://nobody/nothing is a hub name, but the hub cannot be reached"
        ) as told:
            load_hub("nobody/nothing")
    assert time.perf_counter() - started < 8  # left to itself, datasets tries for 23 s
    assert "\n" not in str(told.value)


def test_local_loading_does_not_count_downloads():
    assert hugging_face().config.HF_UPDATE_DOWNLOAD_COUNTS is False
    assert "datasets" in sys.modules


def test_stop_names_file_row_and_mend():
    with pytest.raises(ValueError, match=r"^a\.csv, row 3: empty; mend or remove it, or use --data\.on_error skip$"):
        Rejects("stop").reject("a.csv", 3, "empty")
    with pytest.raises(ValueError, match=r"^a\.png: broken;"):
        Rejects("stop").reject("a.png", None, "broken")


def test_skip_counts_and_warns_up_to_five_percent():
    rejects = Rejects("skip")
    for row in range(5):
        rejects.reject("a.csv", row, "empty")
    assert rejects.count == 5
    with pytest.warns(UserWarning, match=r"5 of 100 rows cannot be used \(first: a\.csv, row 0: empty\)"):
        rejects.finish(100)
    with pytest.raises(ValueError, match=r"5 of 99 rows cannot be used .* more than 5% are bad"):
        rejects.finish(99)


def test_nothing_skipped_says_nothing():
    rejects = Rejects("skip")
    rejects.finish(0)
    assert rejects.reasons == []
