"""``raydeck jobs``: the jobs of a cluster, by the client that submits them."""

import argparse
import difflib
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from cluster import console, dashboard
from cluster.following import again, exit_code, see_through

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

VERBS = {
    "list": ("[--json]", "every job, the newest first: state, workload, time, exit code, run directory"),
    "status": ("ID [--json]", "one job: state, command, run directory, time, exit code"),
    "logs": ("ID [--follow]", "what a job has printed; --follow until it ends, and with its exit code"),
    "stop": ("ID [--wait SECONDS] [--json]", "ask a job to stop, and wait until it has; a run saves first"),
}

WHERE = (
    "All take --address http://HOST:8265, the cluster's dashboard; RAY_ADDRESS says the same. --insecure accepts one "
    "that asks for no token."
)

STOP_SECONDS = 60
"""Time that a stopped job has for saving. Ray's own 3 s are too short for a checkpoint."""

WAIT_SECONDS = STOP_SECONDS + 15
"""How long ``jobs stop`` waits: until a job that does not end by itself has been killed, and the cluster says so."""


def command(arguments: Sequence[str]) -> int:
    """``jobs VERB ...``; returns the exit code.

    Raises:
        ValueError: The command line is at fault, there is no such job, or no cluster answers.
    """
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help"):
        width = max(len(f"{name} {form}") for name, (form, _) in VERBS.items())
        lines = [f"  raydeck jobs {f'{name} {form}':{width}}  {words}" for name, (form, words) in VERBS.items()]
        print("\n".join(["usage: raydeck jobs VERB ...", "", *lines, "", WHERE]))
        return 0
    if verb not in VERBS:
        raise ValueError(f"jobs: no verb {verb!r}; {_nearest(verb, VERBS) or 'one of ' + ', '.join(VERBS)}")
    if {"-h", "--help"} & set(rest):
        print(f"usage: raydeck jobs {verb} {VERBS[verb][0]}\n\n{VERBS[verb][1]}\n\n{WHERE}")
        return 0
    options = read(verb, rest)
    handlers: dict[str, Callable[[JobSubmissionClient, argparse.Namespace], int]] = {
        "list": show_all,
        "status": show_one,
        "logs": show_log,
        "stop": stop,
    }
    client = options.where.connect()
    with dashboard.answering():
        return handlers[verb](client, options)


def read(verb: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of ``jobs VERB``.

    Raises:
        ValueError: A flag is unknown, a value wrong, or the ID missing.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--address")
    parser.add_argument("--insecure", action="store_true")
    if verb != "list":
        parser.add_argument("job", nargs="?")
    if verb == "logs":
        parser.add_argument("--follow", action="store_true")
    else:
        parser.add_argument("--json", action="store_true")
    if verb == "stop":
        parser.add_argument("--wait", type=float, default=WAIT_SECONDS)
    try:
        options, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(f"jobs {verb}: {error}; expected {VERBS[verb][0]}") from None
    if unknown:
        near = _nearest(unknown[0], ("--address", "--insecure", "--json", "--follow", "--wait"))
        raise ValueError(f"jobs {verb} takes {VERBS[verb][0]}, not {unknown[0]}" + (f"; {near}" if near else ""))
    options.where = dashboard.Where(options.address, options.insecure)
    if verb != "list" and not options.job:
        raise ValueError(f"jobs {verb}: the ID of a job follows the verb; `raydeck jobs list` names them")
    if verb == "stop" and not options.wait >= 0:
        raise ValueError(f"jobs stop --wait: expected at least 0 seconds, got {options.wait:g}")
    return options


def show_all(client: "JobSubmissionClient", options: argparse.Namespace) -> int:
    """``jobs list``."""
    found = sorted(_submitted(client), key=lambda details: details.start_time or 0, reverse=True)
    rows = [facts(details) for details in found]
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        console.say("no job has been submitted to this cluster; `raydeck submit` does")
        return 0
    columns = ("job", "state", "workload", "started", "duration", "exit code", "run")
    console.table("jobs", columns, [[words[column] for column in columns] for words in map(_in_words, rows)])
    return 0


def show_one(client: "JobSubmissionClient", options: argparse.Namespace) -> int:
    """``jobs status ID``: 0 whatever became of the job."""
    told = facts(find(client, options.job))
    if options.json:
        print(json.dumps(told, indent=1))
    else:
        console.table(f"job {told['job']}", ("key", "value"), [row for row in _in_words(told).items() if row[1]])
    return 0


def show_log(client: "JobSubmissionClient", options: argparse.Namespace) -> int:
    """``jobs logs ID``: what there is, or with ``--follow`` all until the job's end."""
    job = find(client, options.job).submission_id
    if options.follow:
        return see_through(client, job, options.where)
    print(client.get_job_logs(job), end="", flush=True)
    return 0


def stop(client: "JobSubmissionClient", options: argparse.Namespace) -> int:
    """``jobs stop ID``: 0 once the job has ended, or at once with ``--wait 0``; 1 if it runs on."""
    details = find(client, options.job)
    job, start = details.submission_id, time.monotonic()
    if details.status.is_terminal():
        line, code = f"job {job} had ended already: {_end(details)}", 0
    else:
        if options.wait:
            console.say(f"stopping job {job}; it has {STOP_SECONDS} s to save, and is killed after that")
        try:
            details, asked = _ask_and_wait(client, job, start + options.wait)
        except KeyboardInterrupt:
            console.say(f"left job {job}; see with: {again(f'status {job}', options.where)}")
            return 130
        line, code = _what_happened(details, asked, time.monotonic() - start, options)
    if options.json:
        print(json.dumps(facts(details), indent=1))
    console.say(line)
    return code


def _ask_and_wait(client: "JobSubmissionClient", job: str, deadline: float) -> tuple["JobDetails", bool]:
    """The job once it has ended, or as it is at the deadline; and whether there was something to be asked to stop.

    A job that is only starting has no process yet, and Ray drops a request to stop it: it is asked again.
    """
    asked = False
    while True:
        asked = asked or client.stop_job(job)
        details = client.get_job_info(job)
        if details.status.is_terminal() or time.monotonic() >= deadline:
            return details, asked
        time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))


def _what_happened(
    details: "JobDetails", asked: bool, seconds: float, options: argparse.Namespace
) -> tuple[str, Literal[0, 1]]:
    """What became of a job that was to stop: a line, and the exit code."""
    job, waited = details.submission_id, console.duration(seconds)
    if details.status.is_terminal():
        killed = str(details.status) == "STOPPED" and seconds >= STOP_SECONDS
        words = ", killed, so that only its last checkpoint stands" if killed else ""
        return f"job {job} ended after {waited}{words}: {_end(details)}", 0
    if not asked:
        return f"job {job} is only starting and cannot be stopped yet; give the same command again", 1
    see = f"see with: {again(f'status {job}', options.where)}"
    if options.wait:
        return f"job {job} runs still after {waited}; {see}", 1
    return f"job {job} has been asked to stop; {see}", 0


def _end(details: "JobDetails") -> str:
    """How a job ended, and how its run is gone on with."""
    told = facts(details)
    if told["state"] != "stopped":
        return f"{told['state']}, exit code {told['exit_code']}" if told["exit_code"] is not None else told["state"]
    return "stopped" + (f"; the same command goes on with {told['run']}" if told["workload"] and told["run"] else "")


def find(client: "JobSubmissionClient", job: str) -> "JobDetails":
    """A job that was submitted.

    Raises:
        ValueError: There is none of this name; says which is nearest.
    """
    if re.fullmatch(r"\w[\w.:~-]*", job):  # Ray's client puts it into a URL as it stands
        try:
            details = client.get_job_info(job)
        except RuntimeError as error:
            if "status code 404" not in str(error):
                raise
        else:
            if details.submission_id:
                return details
    near = _nearest(job, [details.submission_id for details in _submitted(client)])
    raise ValueError(f"no job {job!r} on this cluster; {near or '`raydeck jobs list` names them'}")


def _submitted(client: "JobSubmissionClient") -> list["JobDetails"]:
    """The jobs that came through the jobs API; a script that joined the cluster has no log there, nor an end."""
    return [details for details in client.list_jobs() if details.submission_id]


def _nearest(given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def facts(details: "JobDetails") -> dict[str, Any]:
    """What ``--json`` says of a job: times in UTC and seconds, None for what is not known."""
    metadata = details.metadata or {}
    code = exit_code(details)
    start, end = details.start_time, details.end_time
    seconds = ((end or 1000 * time.time()) - start) / 1000 if start else None
    return {
        "job": details.submission_id,
        "state": str(details.status).lower(),
        "workload": metadata.get("workload"),
        "run": metadata.get("run"),
        "entrypoint": details.entrypoint,
        "started": datetime.fromtimestamp(start / 1000, UTC).isoformat(timespec="seconds") if start else None,
        "seconds": None if seconds is None else round(max(0.0, seconds), 1),
        "exit_code": code,
        "reason": _reason(details),
    }


def _reason(details: "JobDetails") -> str | None:
    """The line that says why a job failed: its own last, or the cluster's first if it never came to run."""
    if str(details.status) != "FAILED":
        return None
    message = str(details.message or details.error_type or "").strip()
    own = details.driver_exit_code is not None
    return (dashboard.last_line(message) if own else message.partition("\n")[0]) or None


def _in_words(told: dict[str, Any]) -> dict[str, str]:
    """Facts for people: times as the clock here shows them, nothing for what is not known."""
    words = {key.replace("_", " "): "" if value is None else str(value) for key, value in told.items()}
    if told["started"]:
        words["started"] = datetime.fromisoformat(told["started"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    del words["seconds"]
    order = ("job", "state", "workload", "run", "entrypoint", "started", "duration", "exit code", "reason")
    words["duration"] = "" if told["seconds"] is None else console.duration(told["seconds"])
    return {key: words[key] for key in order}
