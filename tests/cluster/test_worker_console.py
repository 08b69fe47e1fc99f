"""What many workers say, shown as if it came from one; and the log that each leaves."""

import json
import logging
import os
import re
import subprocess
import sys
import time
import warnings

import pytest
import terminal

from cluster import console, worker_log
from cluster.folder import Folder
from cluster.worker_console import MOST_LINES, Board, Relay, RelayedProgress, Speaker

BAR = """
import time
from cluster.worker_console import Board
board = Board()
board.show(None, [("notice", "going on"), ("warning", "odd"), ("warning", "odd")])
board.show((30, 120, "epoch 1/4  step 30  train/loss 0.5000  1,200 examples/s"), [])
time.sleep(0.3)
board.show((60, 120, "epoch 2/4  step 60  train/loss 0.4000  1,300 examples/s"), [("notice", "epoch 1  val/loss 0.4")])
time.sleep(0.3)
board.progress.close()
"""


class Near:
    """A relay in this process, called as an actor's handle is."""

    def __init__(self):
        self.relay = Relay()

    def __getattr__(self, name):
        method = getattr(self.relay, name)
        return type("Method", (), {"remote": staticmethod(method)})


@pytest.fixture
def speaker(monkeypatch):
    monkeypatch.setattr(Speaker, "_arrive", lambda self: None)  # which asks Ray
    return Speaker(Near(), live=True)


def test_rank_0_is_heard_and_the_others_warn_only(speaker, capsys):
    for rank in (0, 1):
        with speaker.speaking(rank), warnings.catch_warnings():
            warnings.simplefilter("always")
            console.say(f"notice of rank {rank}")
            warnings.warn("3 rows\n are skipped", stacklevel=1)
    bar, lines = speaker.relay.relay.take()
    assert bar is None
    assert lines == [
        ("notice", "notice of rank 0"),
        ("warning", "3 rows are skipped"),
        ("warning", "3 rows are skipped"),
    ]
    assert speaker.relay.relay.take() == (None, [])
    assert "notice of rank 1" in capsys.readouterr().err  # which is its log
    console.say("here")
    assert capsys.readouterr().err == "here\n"


def test_a_warning_is_shown_once_whichever_ranks_and_attempts_repeat_it(capsys):
    board = Board()
    for _attempt in range(2):
        board.show(None, [("notice", "epoch 1"), ("warning", "odd"), ("warning", "odd"), ("notice", "")])
    board.show((1, 2, "no terminal, no bar"), [("warning", "even")])
    assert capsys.readouterr().err == "epoch 1\nwarning: odd\nepoch 1\nwarning: even\n"


def test_what_nobody_takes_is_bounded():
    relay = Relay()
    for k in range(MOST_LINES + 5):
        relay.tell("notice", str(k))
        relay.show((k, 9, "bar"))
    bar, lines = relay.take()
    assert (len(lines), bar) == (MOST_LINES, (MOST_LINES + 4, 9, "bar"))


def test_a_bar_costs_two_messages_a_second_and_none_without_a_terminal(speaker):
    progress = RelayedProgress(10, True, speaker)
    assert progress.due()
    progress.step(3, "epoch 1/2")
    assert not progress.due()
    assert speaker.relay.relay.take() == ((3, 10, "epoch 1/2"), [])
    progress.updated = time.monotonic() - 0.6
    assert progress.due()
    assert not RelayedProgress(10, False, speaker).due()
    assert not RelayedProgress(10, True, Speaker(speaker.relay, live=False)).due()


def test_a_terminal_shows_the_bar_below_the_lines():
    code, sent = terminal.run([sys.executable, "-c", BAR], env=os.environ | {"COLUMNS": "140", "TERM": "xterm"})
    assert code == 0, sent
    assert sent.count("warning: odd") == 1
    assert re.search(r"━+ +epoch 1/4  step 30  train/loss 0\.5000  1,200 examples/s", sent)
    assert re.search(r"━+ +epoch 2/4  step 60 .* 0:00:\d\d", sent)  # and the time left
    assert sent.index("going on") < sent.index("epoch 1  val/loss 0.4")


def test_all_that_a_worker_prints_is_in_its_log(tmp_path):
    with pytest.raises(RuntimeError, match="no more"), worker_log.kept(Folder(str(tmp_path)), 1):
        subprocess.run(["sh", "-c", "echo of another process; echo its error >&2"], check=True)
        os.write(2, b"of a library\n")
        logging.getLogger("some.library").warning("logged")
        logging.getLogger("some.library").info("of no interest")
        raise RuntimeError("no more")
    with worker_log.kept(Folder(str(tmp_path)), 1):
        os.write(1, b"second attempt\n")
    told = (tmp_path / "logs" / "rank-1.log").read_text()
    assert os.listdir(tmp_path / "logs") == ["rank-1.log"]
    lines = told.splitlines()
    assert lines[0].startswith("--- 20") and lines[0].endswith(f"process {os.getpid()} on {os.uname().nodename}")
    assert lines[1:5] == ["of another process", "its error", "of a library", "logged"]
    assert told.count("--- 20") == 2 and lines[-1] == "second attempt"
    assert "of no interest" not in told


def test_the_traceback_of_a_failure_is_in_the_log(tmp_path):
    program = (
        "from cluster import worker_log; from cluster.folder import Folder\n"
        f"with worker_log.kept(Folder({str(tmp_path)!r}), 0): print('printed'); 1 / 0"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    told = (tmp_path / "logs" / "rank-0.log").read_text()
    assert "printed\n" in told and "Traceback" in told and "ZeroDivisionError" in told
    assert done.stdout == "" and "ZeroDivisionError" in done.stderr  # restored by then


def test_remote_storage_gets_the_end_of_a_log_after_what_was_there(monkeypatch):
    folder = Folder(f"memory://logs-{os.getpid()}/run")
    monkeypatch.setattr(worker_log, "MOST_BYTES", 100)
    for text in ("first", "second"):
        with worker_log.kept(folder, 0):
            os.write(1, f"{text}\n".encode())
    told = folder.read("logs/rank-0.log").decode()
    assert len(told) == 100 and told.endswith("second\n")


def test_a_log_that_cannot_be_kept_does_not_stop_a_run(tmp_path, capsys):
    (tmp_path / "logs").write_text("a file")
    with worker_log.kept(Folder(str(tmp_path)), 0):
        pass
    assert capsys.readouterr().err.startswith("warning: no log of rank 0 is kept: ")


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_look_like_one_in_a_terminal_and_in_a_file(local_cluster, raydeck):
    rows = ["a,b,label", *(f"{k},{k % 7},{'xy'[k % 2]}" for k in range(4000)), "1,inf,x"]
    (raydeck.folder / "t.csv").write_text("\n".join(rows))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment = kept | local_cluster["environment"] | {"COLUMNS": "160", "TERM": "xterm"}
    command = [sys.executable, "-m", "cluster", "train", "mlp", "--workers", "2", "--cpus-per-worker", "1"]
    flags = ["--data.source", "t.csv", "--data.target", "label", "--data.on_error", "skip", "--data.batch_size", "8",
             "--trainer.max_epochs", "4", "--baselines", "false", "--name"]  # fmt: skip
    code, sent = terminal.run([*command, *flags, "r"], cwd=raydeck.folder, env=environment)
    assert code == 0, sent
    assert re.search(r"━ +epoch \d/4  step \d+  train/loss \d\.\d+ .*[\d,]+ examples/s +\d:\d\d:\d\d", sent), sent
    assert re.findall(r"^epoch (\d) ", sent, flags=re.MULTILINE) == ["1", "2", "3", "4"]
    warned = re.findall(r"warning: .*", sent)
    assert len(warned) == 1 and "t.csv" in warned[0]
    logs = {path.name: path.read_text() for path in (raydeck.folder / "runs" / "r" / "logs").iterdir()}
    assert sorted(logs) == ["rank-0.log", "rank-1.log"]
    assert all("t.csv" in told for told in logs.values())
    assert "epoch 4 " in logs["rank-0.log"] and "epoch" not in logs["rank-1.log"]

    out, err = raydeck("train", *command[4:], *flags, "s", "--json", **local_cluster["environment"])
    assert [line.split()[1] for line in err.splitlines() if line.startswith("epoch ")] == ["1", "2", "3", "4"]
    assert "━" not in err and err.count("warning: ") == 1
    assert json.loads(out)["world_size"] == 2
