"""Submitting a command to a running cluster: the same command, as a Ray job.

The project's own code travels with the job, so that the cluster runs what stands here. The token never does: it goes
into the header of each request, and the job finds the cluster's own in its environment.
"""

import asyncio
import contextlib
import logging
import os
import re
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cluster import _package, console

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

STOPPED = 143
"""The exit code of a job that somebody stopped: Ray sends it SIGTERM."""

STOP_SECONDS = 60
"""Time that a stopped job has for saving. Ray's own 3 s are too short for a checkpoint."""

CONNECT_SECONDS, ANSWER_SECONDS = 4, 5
START_SECONDS = 60
"""How long to ask again while a cluster that has just started has no agent to take the job."""

QUIET_SECONDS = 120
"""Silence after which the log is asked for anew: a connection can die without either side being told."""

ATTEMPTS = 10
"""Times in a row that the cluster may fail to answer, a few seconds apart, before a job is left to itself."""


def submit(arguments: Sequence[str], *, address: str | None, project: Path | None = None, wait: bool = True) -> int:
    """Run ``raydeck <arguments>`` as a job on a cluster, and follow its log on stdout.

    SIGINT leaves the job to the cluster and says how to come back to it.

    Args:
        arguments: A verb, what it works on, and flags that have been checked.
        address: The cluster's dashboard, ``http://host:8265``; by default RAY_API_SERVER_ADDRESS or RAY_ADDRESS.
        project: Folder that holds the packages to send; by default where this one lies.
        wait: Follow the job until it ends; False returns once the cluster has it.

    Returns:
        The job's own exit code; 143 if somebody stopped it, 130 if left by SIGINT, 1 if it never came to run or the
        cluster was lost. 0 without ``wait``.

    Raises:
        ValueError: The command cannot run elsewhere, the package cannot be built, or the cluster cannot be reached or
            refuses; one line.
    """
    command, files = _package.prepare(arguments)
    url, token = resolve_address(address), find_token()
    client = connect(url, token)
    job = f"raydeck-{command[0]}-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="raydeck-") as folder:
        metadata = _stage(Path(folder), project or Path(__file__).parents[1], files) | _describe(command)
        _send(client, job, ["python", "-m", "cluster", *command], Path(folder), metadata)
    console.say(f"job {job} is at {url}")
    again = f"{'RAY_AUTH_MODE=token ' if token else ''}ray job {{}} {job} --address {url}"
    if wait:
        return _see_through(client, job, again)
    console.say(f"follow it with: {again.format('logs')} --follow")
    return 0


def _see_through(client: "JobSubmissionClient", job: str, again: str) -> int:
    """Follow a job to its end; ``again`` is the command by which to come back to it."""
    try:
        ended = follow(client, job)
    except KeyboardInterrupt:
        console.say(f"left job {job} to the cluster; follow it with: {again.format('logs')} --follow")
        console.say(f"stop it with: {again.format('stop')}")
        return 130
    if ended is None:
        console.say(f"the cluster does not answer any more; ask for job {job} with: {again.format('status')}")
        return 1
    return exit_code(ended)


def resolve_address(address: str | None) -> str:
    """The dashboard's URL.

    Args:
        address: A URL or ``host[:port]``; by default RAY_API_SERVER_ADDRESS, else RAY_ADDRESS.

    Raises:
        ValueError: No address, or one of something else than a dashboard.
    """
    named = {"--address": address} | {key: os.environ.get(key) for key in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")}
    origin, given = next(((key, value.strip()) for key, value in named.items() if value), ("", ""))
    mend = "name the cluster's dashboard, e.g. --address http://HOST:8265"
    if not given:
        raise ValueError(f"submit: no cluster given; {mend}, or set RAY_ADDRESS")
    parts = urlsplit(given if "://" in given else f"//{given}")
    if parts.username or parts.password:
        raise ValueError(f"{origin}: an address with a user or password in it; set RAY_AUTH_TOKEN instead")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("", "http", "https") or port == 6379 or given in ("auto", "local"):
        raise ValueError(f"{origin} {given}: jobs are not submitted there; {mend}")
    if parts.scheme:
        return given.rstrip("/")
    return f"http://{given.rstrip('/')}" + ("" if port else ":8265")


def find_token() -> str | None:
    """The cluster's token, from where Ray itself looks, in its order; None if there is none.

    RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, ``~/.ray/auth_token``. Unlike Ray's own client it need not
    be told RAY_AUTH_MODE=token; with RAY_AUTH_MODE=disabled it looks nowhere.

    Raises:
        ValueError: The file cannot be read, the token is none, or RAY_AUTH_MODE=token and there is no token.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        return None
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token and (named or path.is_file()):
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"RAY_AUTH_TOKEN_PATH {path}: no token can be read ({type(error).__name__})") from None
    if not token and mode == "token":
        raise ValueError("RAY_AUTH_MODE=token, and no token: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to its file")
    if not re.fullmatch(r"[!-~]*", token):  # a header cannot carry it, and the library's own message would show it
        raise ValueError("RAY_AUTH_TOKEN or its file holds more than one word; a token has no spaces or line breaks")
    return token or None


def connect(url: str, token: str | None) -> "JobSubmissionClient":
    """A client of the jobs API at ``url``.

    Raises:
        ValueError: Nothing answers, something else does, or the token is missing or wrong.
    """
    import requests
    from ray.job_submission import JobSubmissionClient

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    _probe(url, headers)
    for module in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)  # they tell of each upload and connection
    try:
        with _environment("RAY_API_SERVER_ADDRESS", url):  # goes before its argument, as RAY_ADDRESS does
            return JobSubmissionClient(url, headers=headers)
    except (requests.RequestException, ConnectionError, RuntimeError) as error:
        raise ValueError(f"{url}: {_last_line(error)}") from None


def _probe(url: str, headers: dict[str, str]) -> None:
    """Ask for the dashboard's version, with a time limit, which Ray's client has none of."""
    import requests

    try:
        answer = requests.get(f"{url}/api/version", headers=headers, timeout=(CONNECT_SECONDS, ANSWER_SECONDS))
        found = answer.json() if answer.ok else {}
    except requests.exceptions.JSONDecodeError:
        found = {}
    except requests.RequestException as error:
        reasons = {requests.Timeout: "no answer in time", requests.exceptions.SSLError: "TLS fails"}
        reason = next((why for kind, why in reasons.items() if isinstance(error, kind)), "refused or no such host")
        raise ValueError(f"no cluster answers at {url} ({reason}); check the address, and that it is up") from None
    if answer.status_code in (401, 403):
        fault = "refuses the token" if headers else "wants a token"
        raise ValueError(
            f"the cluster at {url} {fault} ({answer.status_code}); set RAY_AUTH_TOKEN to the cluster's, or "
            "RAY_AUTH_TOKEN_PATH to the file that holds it"
            + ("; RAY_AUTH_MODE=disabled sends none" if os.environ.get("RAY_AUTH_MODE") == "disabled" else "")
        )
    if not isinstance(found, dict) or "ray_version" not in found:
        raise ValueError(f"{url} answers, but is no Ray dashboard (HTTP {answer.status_code}); its port is mostly 8265")


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _stage(folder: Path, project: Path, files: dict[str, Path]) -> dict[str, str]:
    """Build the package in ``folder``; returns what it says of its origin."""
    from importlib.metadata import version

    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        package = _package.collect(project, files, never=[Path(named)] if named else [])
        package.write(folder)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if package.private:
        console.say(f"not sent, as they look private: {', '.join(map(str, package.private))}")
    origin = {"raydeck_version": version("raydeck"), "git_commit": _package.commit(project)}
    return {key: value for key, value in origin.items() if value}


def _describe(command: Sequence[str]) -> dict[str, str]:
    """A job's metadata, which everybody on the cluster can read."""
    return {"verb": command[0], "workload" if command[0] in ("train", "tune") else "run": command[1]}


def _send(
    client: "JobSubmissionClient", job: str, entrypoint: Sequence[str], folder: Path, metadata: dict[str, str]
) -> None:
    """Upload the package and start the job; asks again while the cluster is still starting."""
    import requests

    environment = {"working_dir": str(folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}}
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.submit_job(
                entrypoint=shlex.join(entrypoint), submission_id=job, runtime_env=environment, metadata=metadata
            )
            return
        except (requests.RequestException, RuntimeError) as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise ValueError(f"the cluster did not take the job: {_last_line(error)}") from None
        time.sleep(1)


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


def exit_code(details: "JobDetails") -> int:
    """The job's own exit code, and a line on any end but success."""
    status, code = str(details.status), details.driver_exit_code
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        console.say(f"job {details.submission_id} was stopped before it ended")
        return STOPPED
    if code is None:  # it never came to run its command
        reason = str(details.message or details.error_type).strip().partition("\n")[0]
        console.say(f"job {details.submission_id} failed outside its command: {reason}")
        return 1
    console.say(f"job {details.submission_id} ended with exit code {code}")
    return code if code >= 0 else 128 - code


def _last_line(error: Any) -> str:
    """The line of a traceback, or of a message, that says what was wrong."""
    return str(error).strip().rpartition("\n")[2]
