"""How a job ended, in a line and an exit code, and the command by which to come back to it."""

import pytest

from cluster.following import again, exit_code, tell_end

OUTSIDE = "job j failed outside its command: no such package\n"


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
    from ray.dashboard.modules.job.pydantic_models import JobDetails

    details = JobDetails(
        type="SUBMISSION", submission_id="j", status=status, driver_exit_code=code,
        entrypoint="python", message="no such package\nTraceback ...",
    )  # fmt: skip
    assert tell_end(details) == answer
    assert exit_code(details) == (answer if line != OUTSIDE else None)
    assert capsys.readouterr().err == line


def test_the_way_back_names_the_address_that_was_given():
    assert again("logs j --follow", None) == "raydeck jobs logs j --follow"
    assert again("stop j", "http://h:1") == "raydeck jobs stop j --address http://h:1"
