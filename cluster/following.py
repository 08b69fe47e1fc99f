"""Following a job to its end: its log, how it ended, and how to come back to it."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from cluster import console
from cluster.dashboard import Where

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

STOPPED = 143
"""The exit code of a job that somebody stopped: Ray sends it SIGTERM."""

QUIET_SECONDS = 120
"""Silence after which the log is asked for anew: a connection can die without either side being told."""

ATTEMPTS = 10
"""Times in a row that the cluster may fail to answer, a few seconds apart, before a job is left to itself."""


def again(form: str, where: Where) -> str:
    """The command ``raydeck jobs <form>`` for the same cluster."""
    return f"raydeck jobs {form}{where.flags}"


def see_through(client: "JobSubmissionClient", job: str, where: Where) -> int:
    """Print a job's log until it ends; SIGINT leaves the job to the cluster and says how to come back to it.

    Returns:
        The job's own exit code; 143 if somebody stopped it, 130 if left by SIGINT, 1 if it never came to run or the
        cluster was lost.
    """
    try:
        ended = follow(client, job)
    except KeyboardInterrupt:
        console.say(f"left job {job} to the cluster; follow it with: {again(f'logs {job} --follow', where)}")
        console.say(f"stop it with: {again(f'stop {job}', where)}")
        return 130
    if ended is None:
        told = again(f"status {job}", where)
        console.say(f"the cluster does not answer any more; ask for job {job} with: {told}")
        return 1
    return tell_end(ended)


def follow(client: "JobSubmissionClient", job: str) -> "JobDetails | None":
    """Print a job's log as it grows, across lost connections.

    Returns:
        How the job ended; None if the cluster was lost.
    """
    import requests

    shown, failures = 0, 0
    while failures < ATTEMPTS:
        shown, whole = asyncio.run(_show_log(client, job, shown))
        try:
            details = client.get_job_info(job)
            if details.status.is_terminal():
                if not whole:  # the way by which logs are followed is cut off, as by a proxy without web sockets
                    print(client.get_job_logs(job)[shown:], end="", flush=True)
                return details
            failures = 0
        except (requests.RequestException, RuntimeError):
            failures += 1
        time.sleep(1 + min(failures, 4))
    return None


async def _show_log(client: "JobSubmissionClient", job: str, shown: int) -> tuple[int, bool]:
    """Print a log from character ``shown`` on; returns the characters shown by now, and whether it came to its end."""
    import aiohttp

    position = 0
    async with contextlib.aclosing(client.tail_job_logs(job)) as log:
        try:
            while True:
                async with asyncio.timeout(QUIET_SECONDS):
                    text = await anext(log)
                print(text[max(0, shown - position) :], end="", flush=True)
                position += len(text)
                shown = max(shown, position)
        except StopAsyncIteration:
            return shown, True
        except (TimeoutError, RuntimeError, aiohttp.ClientError):
            return shown, False


def exit_code(details: "JobDetails") -> int | None:
    """The exit code of a job's command, as a shell would give it; None while it runs, or if it never came to run."""
    if str(details.status) == "STOPPED":
        return STOPPED
    code = details.driver_exit_code
    return 128 - code if code is not None and code < 0 else code


def tell_end(details: "JobDetails") -> int:
    """Say a line on any end but success; returns the code to exit with, 1 if the command never came to run."""
    status, code, job = str(details.status), exit_code(details), details.submission_id
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        console.say(f"job {job} was stopped before it ended")
    elif code is None:
        reason = str(details.message or details.error_type).strip().partition("\n")[0]
        console.say(f"job {job} failed outside its command: {reason}")
    else:
        console.say(f"job {job} ended with exit code {code}")
    return 1 if code is None else code
