"""Reaching a running cluster's dashboard: its address, the token, and a client of its jobs API.

The token goes into the header of each request and nowhere else.
"""

import contextlib
import logging
import os
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cluster import console
from cluster.access import OPEN, accept_risk

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CONNECT_SECONDS, ANSWER_SECONDS = 4, 5

WAKE_SECONDS = 15
"""How long to ask again while nothing listens yet, or only the proxy in front of a cluster that is starting."""


class Asleep(ValueError):
    """Nothing answers that could take jobs, though it may in a moment."""


@dataclass(frozen=True)
class Where:
    """Which cluster, as a command line says it.

    Args:
        address: The flag --address; None if the environment names the cluster.
        insecure: The flag --insecure: use it though it asks for no token.
    """

    address: str | None = None
    insecure: bool = False

    @property
    def flags(self) -> str:
        """What to add to another command, so that it is about the same cluster."""
        return (f" --address {shlex.quote(self.address)}" if self.address else "") + " --insecure" * self.insecure

    def connect(self) -> "JobSubmissionClient":
        """A client; raises ValueError as :func:`resolve_address`, :func:`find_token` and :func:`connect` do."""
        return connect(resolve_address(self.address), find_token(), self.insecure)


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
        raise ValueError(f"no cluster given; {mend}, or set RAY_ADDRESS")
    parts = urlsplit(given if "://" in given else f"//{given}")
    if parts.username or parts.password:
        raise ValueError(f"{origin}: an address with a user or password in it; set RAY_AUTH_TOKEN instead")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("", "http", "https") or port == 6379 or given in ("auto", "local"):
        raise ValueError(f"{origin} {given}: no jobs are taken there; {mend}")
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
            raise ValueError(
                f"RAY_AUTH_TOKEN_PATH {path}: no token can be read ({type(error).__name__}); name the file that "
                "holds the cluster's token"
            ) from None
    if not token and mode == "token":
        raise ValueError("RAY_AUTH_MODE=token, and no token; set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to its file")
    if not re.fullmatch(r"[!-~]*", token):  # a header cannot carry it, and the library's own message would show it
        raise ValueError(
            "RAY_AUTH_TOKEN or its file holds more than one word; give the token alone: it has no spaces or line breaks"
        )
    return token or None


def connect(url: str, token: str | None, insecure: bool = False) -> "JobSubmissionClient":
    """A client of the jobs API at ``url``; waits a little for a cluster that has just been started.

    Raises:
        ValueError: Nothing answers, something else does, the token is missing or wrong, or none is asked for and
            ``insecure`` does not accept that.
    """
    import requests
    from ray.job_submission import JobSubmissionClient

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if _wait_until_awake(url, headers):
        accept_risk(url, OPEN, insecure, "start it with RAY_AUTH_MODE=token")
    for module in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)  # they tell of each upload and connection
    try:
        with _environment("RAY_API_SERVER_ADDRESS", url):  # goes before its argument, as RAY_ADDRESS does
            return JobSubmissionClient(url, headers=headers)
    except (requests.RequestException, ConnectionError, RuntimeError) as error:
        raise ValueError(f"{url}: {last_line(error)}") from None


def _wait_until_awake(url: str, headers: dict[str, str]) -> bool:
    """Ask until the dashboard answers, or :data:`WAKE_SECONDS` are over; as :func:`_probe`."""
    deadline, told = time.monotonic() + WAKE_SECONDS, False
    while True:
        try:
            return _probe(url, headers)
        except Asleep:
            if time.monotonic() >= deadline:
                raise
        if not told:
            console.say(f"{url} does not answer yet; asking again for {WAKE_SECONDS} s")
            told = True
        time.sleep(1)


def _probe(url: str, headers: dict[str, str]) -> bool:
    """Ask for the dashboard's version, with a time limit, which Ray's client has none of.

    Returns:
        Whether it lets in who has no token. Only one that does not is sent the token.
    """
    import requests

    limits = (CONNECT_SECONDS, ANSWER_SECONDS)
    try:
        answer = requests.get(f"{url}/api/version", timeout=limits)
        guarded = answer.status_code in (401, 403)
        if guarded and headers:
            answer = requests.get(f"{url}/api/version", headers=headers, timeout=limits)
        found = answer.json() if answer.ok else {}
    except requests.exceptions.JSONDecodeError:
        found = {}
    except requests.RequestException as error:
        raise _unreachable(url, error) from None
    if answer.status_code in (401, 403):
        fault = "refuses the token" if headers else "wants a token"
        raise ValueError(
            f"the cluster at {url} {fault} ({answer.status_code}); set RAY_AUTH_TOKEN to the cluster's, or "
            "RAY_AUTH_TOKEN_PATH to the file that holds it"
            + ("; RAY_AUTH_MODE=disabled sends none" if os.environ.get("RAY_AUTH_MODE") == "disabled" else "")
        )
    if answer.status_code in (502, 503, 504):
        raise Asleep(f"no cluster answers at {url} (HTTP {answer.status_code}); check that it is up")
    if not isinstance(found, dict) or "ray_version" not in found:
        raise ValueError(f"{url} answers, but is no Ray dashboard (HTTP {answer.status_code}); its port is mostly 8265")
    return not guarded


def _unreachable(url: str, error: Exception) -> ValueError:
    """What to say of a request that got no answer; :class:`Asleep` if the next one may get one."""
    import requests

    reasons = {requests.Timeout: "no answer in time", requests.exceptions.SSLError: "TLS fails"}
    reason = next((why for kind, why in reasons.items() if isinstance(error, kind)), "refused")
    if "Failed to resolve" in str(error):
        reason = "no such host"
    kind = Asleep if reason == "refused" else ValueError
    return kind(f"no cluster answers at {url} ({reason}); check the address, and that it is up")


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Turn the failure of a request inside into one line.

    Raises:
        ValueError: The cluster did not answer, or refused.
    """
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except (requests.RequestException, RuntimeError, AuthenticationError) as error:
        raise ValueError(f"the cluster did not do as asked: {last_line(error)}") from None


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


def last_line(error: Any) -> str:
    """The line of a traceback, or of a message, that says what was wrong."""
    return str(error).strip().rpartition("\n")[2]
