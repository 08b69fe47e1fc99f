"""What travels with a submitted job: its command, and the project's own packages without anything private in them."""

import difflib
import fnmatch
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cluster import console
from cluster.cli import VERBS

JOBS = {
    verb: "NAME" if form.startswith("NAME") else "RUN"
    for verb, (form, _) in VERBS.items()
    if form.startswith(("NAME", "RUN")) and verb != "show"  # which needs no cluster
}
"""The verbs that run something, and whether each takes the NAME of a workload or a RUN."""

PLACES = ("--storage", "--output", "--data.source", "--data.vectors")
FLAGS = ("--config", *PLACES)

PACKAGES = ("cluster", "lightning_modules", "tune_spaces", "workloads")

MAX_BYTES = 100 * 2**20
"""The most that is sent: the cluster's control store holds the package in memory."""

SECRETS = (
    ".env*", "*.env", ".aws", ".azure", ".boto", ".docker", ".dockercfg", ".git-credentials", ".gnupg", ".htpasswd",
    ".kube", ".netrc", ".npmrc", ".pgpass", ".pypirc", ".s3cfg", ".ssh", "_netrc", "*accesskeys*.csv",
    "accesstokens.json", "application_default_credentials*", "auth_token*", "*client_secret*.json", "credentials",
    "*credentials.csv", "*credentials.json", "gcloud", "id_dsa*", "id_ecdsa*", "id_ed25519*", "id_rsa*", "*.jks",
    "*.kdbx", "*.key", "kubeconfig*", "msal_token_cache*", "*.p12", "*.p8", "*.pem", "*.pfx", "*.ppk", "rclone.conf",
    "rootkey*.csv", "secrets.json", "secrets.toml", "secrets.y*ml", "*service*account*.json", "*.tfstate*", "*.tfvars",
    "token", "token.txt", "*.token",
)  # fmt: skip
"""Names, in lower case, of files and folders that hold keys, tokens or credentials."""

CLUTTER = (".*", "__pycache__", "*.py[cod]", "*.egg-info", "node_modules")
"""Names that no program needs on another machine; hidden ones among them, .git and .venv."""


def prepare(arguments: Sequence[str]) -> tuple[list[str], dict[str, Path]]:
    """Turn a command into one that means the same on another machine.

    Returns:
        The command, and the files that it names and that must travel: path in the package to local file.

    Raises:
        ValueError: It has no such verb, or names a place that only this machine has.
    """
    verb = arguments[0] if arguments else ""
    if verb not in JOBS:
        near = difflib.get_close_matches(verb, JOBS, n=1)
        raise ValueError(
            f"submit: no verb {verb!r}" + (f"; did you mean {near[0]!r}?" if near else f"; one of {', '.join(JOBS)}")
        )
    _check_positional(arguments)
    command, files = [], {}
    for argument in _joined(arguments):
        flag, _, value = argument.partition("=")
        if re.search(r"://[^/@\s]*:[^/@\s]*@", argument):
            raise ValueError(f"{flag}: a password in it would be seen by everybody; set it in the nodes' environment")
        if flag == "--config":
            name = f"configs/{len(files)}-{Path(value).name}"
            files[name] = _check_config(value)
            argument = f"--config={name}"
        elif flag in PLACES:
            _check_place(flag, value)
        command.append(argument)
    given = {argument.partition("=")[0] for argument in command}
    if JOBS[verb] == "NAME" and "--storage" not in given:
        raise ValueError(
            f"submit {verb}: its run would vanish with the job; add --storage with an absolute path that all nodes "
            "share, or a URI such as s3://bucket/runs"
        )
    if "--data.source" not in given:
        for file in files.values():
            _check_source_in(file)
    return command, files


def _joined(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments, with ``--flag value`` as ``--flag=value`` for the flags that matter here."""
    rest = iter(arguments)
    for argument in rest:
        if argument in FLAGS:
            value = next(rest, None)
            if value is None:
                raise ValueError(f"{argument}: expected a value")
            argument = f"{argument}={value}"
        yield argument


def _check_positional(arguments: Sequence[str]) -> None:
    """Raise ValueError unless what a verb works on follows it and is there on the cluster too."""
    verb, *rest = arguments
    positional = list(itertools.takewhile(lambda argument: not argument.startswith("-"), rest))
    if not positional:
        kind = "NAME of a workload" if JOBS[verb] == "NAME" else "RUN"
        raise ValueError(f"submit {verb}: the {kind} follows the verb, before any flag")
    if JOBS[verb] == "RUN":
        for place in positional:
            _check_place("RUN" if place is positional[0] else "INPUT", place)


def _check_place(flag: str, value: str) -> None:
    """Raise ValueError for a path that only this machine has; warn of one to read that this machine does not have."""
    path = value.removeprefix("file://")
    if PurePosixPath(path).is_absolute():
        if flag not in ("--storage", "--output") and not Path(path).exists():
            console.warn(f"{flag} {value}: not on this machine, so not checked; every node of the cluster must have it")
        return
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", value):
        return
    if flag != "--data.source":
        raise ValueError(
            f"{flag} {value}: a job runs in a folder of its own, so a relative path means nothing there; give an "
            "absolute path that all nodes share, or a URI such as s3://bucket/runs"
        )
    if re.search(r"[/\\~]|^\.", value) or Path(value).exists():  # anything else is the name of an embedded set
        raise ValueError(
            f"--data.source {value}: a job does not see this machine's files; give an absolute path that all nodes "
            "share, or hf://owner/name"
        )


def _check_config(value: str) -> Path:
    path = Path(value)
    if not path.is_file():
        raise ValueError(f"--config {value}: {'not a file' if path.exists() else 'no such file'}")
    return path


def _check_source_in(file: Path) -> None:
    """Raise ValueError if a config names data that only this machine has."""
    import yaml

    try:
        layer = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--config {file}: cannot be read as YAML ({type(error).__name__})") from None
    if not isinstance(layer, dict):
        raise ValueError(f"--config {file}: expected a mapping with seed, model, data, trainer")
    data = layer.get("data")
    source = data.get("source") if isinstance(data, dict) else layer.get("data.source")
    if isinstance(source, str):
        _check_place("--data.source", source)


@dataclass
class Package:
    """Files to send.

    Args:
        files: Path in the package, with slashes, to the local file.
        private: Local files and folders left out because they look like keys, tokens or credentials.
    """

    files: dict[str, Path] = field(default_factory=dict)
    private: list[Path] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        return sum(os.stat(file).st_size for file in self.files.values())

    def write(self, folder: Path) -> None:
        """Copy the files into an empty folder."""
        for name, file in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def collect(project: Path, extra: Mapping[str, Path], never: Iterable[Path] = ()) -> Package:
    """Choose what a job needs of a project: its four packages and ``pyproject.toml``.

    Args:
        project: Folder that holds the packages: a checkout, or site-packages.
        extra: Further files, by their path in the package.
        never: Files that must not travel, whatever their names.

    Raises:
        ValueError: A package is missing, a symbolic link leads nowhere or out of the project, ``extra`` names
            something private, or everything together is larger than :data:`MAX_BYTES`.
    """
    root = project.resolve()
    package = Package()
    walk = _Walk(root, frozenset(file.resolve() for file in never), package)
    for name in PACKAGES:
        folder = walk.follow(root / name)
        if folder is None or not folder.is_dir():
            raise ValueError(f"{project} has no package {name!r}; name a checkout of raydeck")
        walk.folder(folder, name, frozenset())
    settings = walk.follow(root / "pyproject.toml")
    if settings is not None and settings.is_file():
        package.files["pyproject.toml"] = settings
    for name, file in extra.items():
        if is_secret(file) or file.resolve() in walk.never:
            raise ValueError(f"{file} looks like a key, a token or credentials and is not sent; rename it if it is not")
        package.files[name] = file
    _check_size(package)
    return package


@dataclass(frozen=True)
class _Walk:
    """Goes through a project's folders and notes what to send and what is private."""

    root: Path
    never: frozenset[Path]
    package: Package

    def folder(self, folder: Path, name: str, above: frozenset[Path]) -> None:
        """Note what is in ``folder``, which the package calls ``name``; ``above`` are the folders it is inside of."""
        for path in sorted(folder.iterdir()):
            real = self.follow(path)
            names = [path.name, *(real.relative_to(self.root).parts if real and path.is_symlink() else ())]
            if real in self.never or any(_matches(n, SECRETS) for n in names) or (real and is_secret(real)):
                self.package.private.append(path)
            elif real is None or any(_matches(n, CLUTTER) for n in names):
                continue
            elif real.is_file():
                self.package.files[f"{name}/{path.name}"] = real
            elif real.is_dir() and not _is_environment(real) and not _is_run(real):
                if real in above | {folder}:
                    raise ValueError(f"{path}: a symbolic link to a folder that it is inside of; remove it")
                self.folder(real, f"{name}/{path.name}", above | {folder})

    def follow(self, path: Path) -> Path | None:
        """Where ``path`` really is; None for a link that is clutter itself and so need not lead anywhere."""
        if not path.is_symlink():
            return path
        if _matches(path.name, CLUTTER):  # editors lock a file by a hidden link that leads nowhere
            return None
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self.root) or not real.exists():
            raise ValueError(f"{path}: a symbolic link that leads out of the project or nowhere; put a copy there")
        return real


def is_secret(path: Path) -> bool:
    """Whether a file's name, or the way it begins, says that it holds keys, tokens or credentials."""
    if _matches(path.name, SECRETS):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4096)
    return b"PRIVATE KEY-----" in head[:200] or (path.suffix == ".json" and b'"private_key"' in head)


def commit(project: Path) -> str | None:
    """The git commit of a checkout, with ``-dirty`` if its files differ; None outside of one."""
    if not (project / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)


def _is_environment(folder: Path) -> bool:
    """A virtual or conda environment, whatever its name."""
    return (folder / "pyvenv.cfg").exists() or (folder / "conda-meta").exists()


def _is_run(folder: Path) -> bool:
    """A run's folder, or the default home of runs."""
    return folder.name == "runs" or (folder / "result.json").exists() or (folder / "checkpoints").is_dir()


def _check_size(package: Package) -> None:
    total = package.num_bytes
    if total <= MAX_BYTES:
        return
    sizes = {name: os.stat(file).st_size for name, file in package.files.items()}
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
    named = ", ".join(f"{name} ({_megabytes(sizes[name])})" for name in largest)
    raise ValueError(
        f"the project is {_megabytes(total)}, and at most {_megabytes(MAX_BYTES)} are sent; "
        f"move data out of its packages, largest first: {named}"
    )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.0f} MB"
