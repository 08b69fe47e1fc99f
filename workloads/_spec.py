"""Workload and Config: a model, its data and the settings that make the pair train well, as values."""

import difflib
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as L
import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from lightning_modules.shared.players import Players
from workloads._machine import Machine
from workloads._training import Training
from workloads.data._base import DataModule, Reader, Scorer

Overrides = Mapping[str, Any]
"""Dotted key to value, e.g. ``{"model.lr": 3e-4, "data.batch_size": 64}``."""

Config = dict[str, Any]
"""A complete, JSON-safe, checked config: ``{"seed", "model", "data", "trainer"}``."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model, its data, and the settings that make the pair train well.

    Args:
        task: What it does, in a few words, for ``raydeck list``.
        model: Its ``__init__`` signature is the schema of every ``model.*`` key.
        data: Its ``__init__`` signature is the schema of every ``data.*`` key.
        links: Model argument to attribute of the prepared data module: what data decides and nobody may set.
        defaults: Overrides of the signatures' own defaults.
        smoke: Further overrides that finish in seconds on one CPU.
        metric: The metric to quote from the test split, e.g. ``accuracy``.
        monitor: Validation metric that ranks checkpoints and trials.
        mode: Whether a lower or a higher ``monitor`` is better.
        baselines: Called with the prepared data module; returns name to value of ``metric`` on the test split.
        reader: Made from the data module; what ``raydeck predict`` asks, where that is not the data's own task.
        scorer: Called by the data module's ``scores``, where the module's work takes the data to judge it.
        find_unused_parameters: True if a step may leave parameters without a gradient, as alternating players and
            layer-wise pretraining do; DDP refuses that otherwise.
    """

    task: str
    model: type[L.LightningModule]
    data: type[DataModule]
    metric: str
    links: Overrides = field(default_factory=dict)
    defaults: Overrides = field(default_factory=dict)
    smoke: Overrides = field(default_factory=dict)
    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    baselines: Callable[[DataModule], dict[str, float]] | None = None
    reader: type[Reader] | None = None
    scorer: Scorer | None = None
    find_unused_parameters: bool = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the keys of this workload's config to a parser, with the workload's defaults."""
        parser.add_argument("--seed", type=int, default=0, help="Decides initial weights, batch order and dropout.")
        parser.add_class_arguments(self.model, "model", skip=set(self.links))
        parser.add_class_arguments(self.data, "data")
        parser.add_class_arguments(Training, "trainer")
        parser.set_defaults(dict(self.defaults))

    def parser(self) -> ArgumentParser:
        """The one parser that checks every layer of a config."""
        parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, default_env=False)
        self.add_arguments(parser)
        return parser

    def keys(self) -> dict[str, Any]:
        """Dotted key to declared type, of every key that may be set."""
        return keys_of(self.parser())

    def config(self, *layers: Overrides) -> Config:
        """Signature defaults, then the workload's, then each layer (dotted or nested) in turn.

        Raises:
            ValueError: A key is unknown or decided by the data, or a value has the wrong type; one line.
        """
        parser = self.parser()
        namespace = parser.get_defaults()
        known = keys_of(parser)
        for layer in layers:
            flat = flatten(layer, known)
            self.check_keys(flat, known)
            try:
                namespace = parser.parse_object(flat, namespace=namespace)
            except ArgumentError as error:
                raise ValueError(self._wrong(flat, known) or " ".join(str(error).split())) from None
        config = to_config(namespace)
        if issubclass(self.model, Players) and (count := config["trainer"]["accumulate_grad_batches"]) != 1:
            raise ValueError(
                f"trainer.accumulate_grad_batches: {self.model.__name__}'s networks move in turn with every batch; "
                f"leave it at 1 (not {count}) and raise data.batch_size"
            )
        return config

    def _wrong(self, flat: Overrides, known: Mapping[str, Any]) -> str | None:
        """One line on the first key whose value the parser refuses."""
        parser = self.parser()
        for key, value in flat.items():
            try:
                parser.parse_object({key: value})
            except ArgumentError:
                return wrong_value(key, value, known[key])
        return None

    def check_keys(self, keys: typing.Iterable[str], known: Mapping[str, Any] | None = None) -> None:
        """Raise ValueError for the first key that may not be set, naming the nearest one that may."""
        known = self.keys() if known is None else known
        for key in keys:
            if key in known:
                continue
            if key.removeprefix("model.") in self.links:
                raise ValueError(f"{key} is decided by the data ({self.data.__name__}) and cannot be set; leave it out")
            near = nearest(key, known)
            raise ValueError(f"no key {key!r}" + (f"; did you mean {near!r}?" if near else ""))

    def read(self, path: str) -> Overrides:
        """Read a layer from a YAML file, a path or a URI, as ``raydeck show`` prints it.

        Raises:
            ValueError: No such file, not YAML, or the config of another workload.
        """
        try:
            layer = yaml.safe_load(_text(path))
        except (OSError, ImportError, UnicodeDecodeError) as error:
            raise ValueError(f"--config {path}: cannot be read ({error})") from None
        except yaml.YAMLError as error:
            raise ValueError(f"--config {path}: not YAML ({' '.join(str(error).split())})") from None
        if not isinstance(layer, dict):
            raise ValueError(f"--config {path}: expected a mapping with seed, model, data, trainer")
        name = layer.pop("workload", self.name)
        if name != self.name:
            raise ValueError(f"--config {path} is a config of {name!r}, not of {self.name!r}")
        return layer

    @property
    def name(self) -> str:
        """The stem of the file that declares this workload."""
        import workloads

        return next(name for name in workloads.names() if getattr(_loaded(name), "WORKLOAD", None) is self)

    def to_yaml(self, config: Config) -> str:
        """The config as YAML that ``--config`` takes back."""
        return yaml.safe_dump({"workload": self.name, **config}, sort_keys=False, allow_unicode=True)

    def build_data(self, config: Config, machine: Machine) -> DataModule:
        """The data module of a config, not yet set up."""
        data = self.data(**_arguments(self.data, config["data"]))
        data.seed, data.machine = config["seed"], machine
        data.scorer = self.scorer or data.scorer
        return data

    def reader_of(self, data: DataModule) -> Reader:
        """What ``raydeck predict`` asks."""
        return self.reader(data) if self.reader else data

    @property
    def reader_type(self) -> type[Reader]:
        """The class of :meth:`reader_of`."""
        return self.reader or self.data

    def build_model(self, config: Config, decided: Mapping[str, Any]) -> L.LightningModule:
        """The module of a config. Its initial weights depend on the config's seed alone.

        Args:
            config: A checked config.
            decided: Model argument to value, for each of ``links``: see :meth:`decided`.
        """
        torch.manual_seed(config["seed"])
        return self.model(**_arguments(self.model, config["model"]), **decided)

    def decided(self, data: DataModule) -> dict[str, Any]:
        """What prepared data decides of the model, as arguments of its ``__init__``."""
        return {argument: getattr(data, attribute) for argument, attribute in self.links.items()}


def _loaded(name: str) -> Any:
    import sys

    return sys.modules.get(f"workloads.{name}")


def _arguments(owner: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples: give those arguments that declare one their own type back."""
    hints = typing.get_type_hints(owner.__init__)
    return {k: tuple(v) if isinstance(v, list) and "tuple" in str(hints.get(k)) else v for k, v in values.items()}


def keys_of(parser: ArgumentParser) -> dict[str, Any]:
    """Dotted key to declared type, of a parser's config keys."""
    return {a.dest: getattr(a, "_typehint", None) or a.type for a in parser._actions if is_key(a.dest)}


def choices(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only arguments of a function, which are flags of ``raydeck predict``."""
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def is_key(dest: str) -> bool:
    return dest == "seed" or (dest.partition(".")[0] in ("model", "data", "trainer") and "." in dest)


def to_config(namespace: Namespace) -> Config:
    """The JSON-safe config in a parsed namespace; tuples become lists."""
    values = namespace.as_dict()
    return json.loads(json.dumps({part: values[part] for part in ("seed", "model", "data", "trainer")}))


def flatten(layer: Mapping[str, Any], known: Mapping[str, Any] = {}, prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted keys; a mapping that is the value of a known key stays whole."""
    flat: dict[str, Any] = {}
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and dotted not in known:
            flat |= flatten(value, known, dotted + ".")
        else:
            flat[dotted] = value
    return flat


def nearest(key: str, known: typing.Iterable[str]) -> str | None:
    """The known key most like ``key``; one with the same last part, or that it abbreviates, comes first."""
    known = list(known)
    leaf = key.rpartition(".")[2]
    same = [k for k in known if k.rpartition(".")[2] == leaf or k.startswith(key)]
    close: Sequence[str] = same or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return close[0] if close else None


def wrong_value(key: str, value: Any, kind: Any) -> str:
    """One line that names the key, the refused value and what is expected in its place."""
    kinds = [kind, *typing.get_args(kind)]  # of `Literal[...] | None`, the choices are what helps
    options = next((typing.get_args(k) for k in kinds if typing.get_origin(k) is Literal), ())
    if options:
        expected = "one of " + ", ".join(map(str, options))
    elif "tuple" in str(kind):
        expected = "a list such as [64,64]"
    else:
        names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
        name = getattr(kind, "__name__", str(kind))
        expected = names.get(name, str(kind).replace("NoneType", "null"))
    return f"{key}: expected {expected}, got {value!r}"


def _text(path: str) -> str:
    if "://" not in path:
        return Path(path).read_text(encoding="utf-8")
    import fsspec

    with fsspec.open(path, encoding="utf-8", mode="r") as file:
        return file.read()
