"""Submitting a command to a running cluster: the same command, as a Ray job.

The project's own code travels with the job, so that the cluster runs what stands here. The token never does: it goes
into the header of each request, and the job finds the cluster's own in its environment.
"""

import argparse
import os
import shlex
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import _package, console, dashboard
from cluster.dashboard import Where
from cluster.following import again, see_through
from cluster.jobs import STOP_SECONDS

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

START_SECONDS = 60
"""How long to ask again while a cluster that has just started has no agent to take the job."""

PASSING = ("No available agent", "status code 502", "status code 503", "status code 504")
"""What a cluster answers that is not up yet, or the proxy in front of it."""


def read(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Part the flags of ``submit`` itself, ``address``, ``insecure`` and ``wait``, from the command to be submitted.

    Raises:
        ValueError: One of them lacks its value.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--address")
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--wait", action=argparse.BooleanOptionalAction, default=True)
    try:
        return parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(f"submit: {error}; e.g. --address http://HOST:8265") from None


def check(command: Sequence[str]) -> str | None:
    """Read a command as its verb will, before anything is sent.

    Returns:
        The run directory that it will write, if it writes one.

    Raises:
        ValueError: A flag, a key, the workload or the run is at fault.
    """
    verb, *rest = command or [""]
    if verb not in _package.JOBS or not rest:
        return None  # told of by `_package.prepare`
    if verb == "train":
        from cluster.cli import parse_train

        return parse_train(verb, rest)[0].directory
    if verb == "tune":
        from cluster.sweep import parse

        return parse(rest)[0].job.directory
    if verb == "diagnose":
        from cluster.diagnose import parse as parse_diagnosis

        return parse_diagnosis(rest)[0].job.directory
    from cluster.using import check as check_run

    check_run(verb, rest)
    return None


def submit(
    arguments: Sequence[str],
    *,
    where: Where,
    run: str | None = None,
    project: Path | None = None,
    wait: bool = True,
) -> int:
    """Run ``raydeck <arguments>`` as a job on a cluster, and follow its log on stdout.

    SIGINT leaves the job to the cluster and says how to come back to it.

    Args:
        arguments: A verb, what it works on, and flags that have been checked.
        where: The cluster's dashboard; by default what RAY_API_SERVER_ADDRESS or RAY_ADDRESS says.
        run: The run directory that the command will write, for ``raydeck jobs`` to name.
        project: Folder that holds the packages to send; by default where this one lies.
        wait: Follow the job until it ends; False prints its ID on stdout once the cluster has it.

    Returns:
        As :func:`cluster.following.see_through`; 0 without ``wait``.

    Raises:
        ValueError: The command cannot run elsewhere, the package cannot be built, or the cluster cannot be reached or
            refuses; one line.
    """
    command, files = _package.prepare(arguments)
    if where.insecure and _package.JOBS[command[0]] == "NAME":
        command.append("--insecure")  # the job joins the same cluster
    url, token = dashboard.resolve_address(where.address), dashboard.find_token()
    job = f"raydeck-{command[0]}-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="raydeck-") as folder:
        metadata = _stage(Path(folder), project or Path(__file__).parents[1], files) | _describe(command, run)
        client = dashboard.connect(url, token, where.insecure)
        try:
            _send(client, job, ["python", "-m", "cluster", *command], Path(folder), metadata)
        except KeyboardInterrupt:
            told = again(f"status {job}", where)
            console.say(f"interrupted; whether the cluster has taken job {job} already, says: {told}")
            return 130
    console.say(f"job {job} is at {url}")
    if wait:
        return see_through(client, job, where)
    print(job, flush=True)
    console.say(f"follow it with: {again(f'logs {job} --follow', where)}")
    return 0


def _stage(folder: Path, project: Path, files: dict[str, Path]) -> dict[str, str]:
    """Build the package in ``folder``; returns what it says of its origin."""
    from importlib.metadata import version

    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        package = _package.collect(project, files, never=[Path(named)] if named else [])
        package.write(folder)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror})") from None
    console.say(f"sending {len(package.files)} files, {package.num_bytes / 2**20:.1f} MB")
    if package.private:
        console.say(f"not sent, as they look private: {', '.join(map(str, package.private))}")
    origin = {"raydeck_version": version("raydeck"), "git_commit": _package.commit(project)}
    return {key: value for key, value in origin.items() if value}


def _describe(command: Sequence[str], run: str | None) -> dict[str, str]:
    """A job's metadata, which everybody on the cluster can read."""
    verb, subject, *_ = command
    described = {"verb": verb, "workload": subject} if _package.JOBS[verb] == "NAME" else {"verb": verb, "run": subject}
    return described | ({"run": run} if run else {})


def _send(
    client: "JobSubmissionClient", job: str, entrypoint: Sequence[str], folder: Path, metadata: dict[str, str]
) -> None:
    """Upload the package and start the job; asks again while the cluster is still starting.

    Raises:
        ValueError: The cluster does not take it.
    """
    import requests

    environment = {"working_dir": str(folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}}
    deadline, asked_again = time.monotonic() + START_SECONDS, False
    while True:
        try:
            client.submit_job(
                entrypoint=shlex.join(entrypoint), submission_id=job, runtime_env=environment, metadata=metadata
            )
            return
        except (requests.RequestException, RuntimeError) as error:
            if asked_again and "already exists" in str(error):  # it was taken, and the answer to that was lost
                return
            passing = isinstance(error, requests.ConnectionError) or any(words in str(error) for words in PASSING)
            if not passing or time.monotonic() > deadline:
                reason = dashboard.last_line(error)
                raise ValueError(f"the cluster did not take the job: {reason}") from None
        if not asked_again:
            console.say("the cluster is still starting; asking again until it takes the job")
            asked_again = True
        time.sleep(1)
