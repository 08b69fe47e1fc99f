"""How a job ended, in a line and an exit code, and the command by which to come back to it."""

import pytest
import requests

from cluster import following
from cluster.dashboard import Where
from cluster.following import again, exit_code, see_through, tell_end

OUTSIDE = "job j failed outside its command: no such package\n"


def details(status, code=None, message=None):
    from ray.dashboard.modules.job.pydantic_models import JobDetails

    values = {"driver_exit_code": code, "entrypoint": "python", "message": message}
    return JobDetails(type="SUBMISSION", submission_id="j", status=status, **values)


@pytest.mark.parametrize(
    ("status", "code", "answer", "line"),
    [
        ("SUCCEEDED", 0, 0, ""),
        ("FAILED", 2, 2, "job j ended with exit code 2\n"),
        ("FAILED", -9, 137, "job j ended with exit code 137\n"),
        ("FAILED", None, 1, OUTSIDE),
        ("STOPPED", None, 143, "job j was stopped before it ended\n"),
    ],
)
def test_exit_code_is_the_job_s_own(status, code, answer, line, capsys):
    ended = details(status, code, "no such package\nTraceback ...")
    assert tell_end(ended) == answer
    assert exit_code(ended) == (answer if line != OUTSIDE else None)
    assert capsys.readouterr().err == line


def test_the_way_back_names_the_address_that_was_given():
    assert again("logs j --follow", Where()) == "raydeck jobs logs j --follow"
    assert again("stop j", Where("http://h:1")) == "raydeck jobs stop j --address http://h:1"
    assert again("stop j", Where(None, insecure=True)) == "raydeck jobs stop j --insecure"


class Client:
    """A cluster whose log cannot be followed to its end.

    Args:
        tails: What the log gives before each connection breaks.
        answers: States of the job, or errors, one after the other; the last for ever.
    """

    def __init__(self, tails, answers):
        self.tails, self.answers = list(tails), list(answers)

    async def tail_job_logs(self, job):
        if self.tails:
            yield self.tails.pop(0)
        raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")

    def get_job_info(self, job):
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get_job_logs(self, job):
        return "one\ntwo\nthree\n"


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(following.time, "sleep", lambda _: None)


def test_a_log_is_shown_once_across_lost_connections(at_once, capsys):
    states = [details("RUNNING"), requests.ConnectionError("reset"), details("FAILED", 3)]
    assert see_through(Client(["one\n", "one\ntwo\n"], states), "j", Where()) == 3
    told = capsys.readouterr()
    assert told.out == "one\ntwo\nthree\n"
    assert told.err == "job j ended with exit code 3\n"


def test_a_cluster_that_is_lost_is_told(at_once, capsys):
    assert see_through(Client([], [requests.ConnectionError("reset")]), "j", Where("http://h:1")) == 1
    back = "raydeck jobs status j --address http://h:1"
    assert capsys.readouterr().err == f"the cluster does not answer any more; ask for job j with: {back}\n"
