"""Flags: a verb's own, from dataclasses, beside a workload's keys, in one parser; and one line for each mistake."""

import argparse
import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from workloads._spec import Config, Overrides, Workload, choices, flatten, is_key, nearest, to_config, wrong_value


def add_flags(parser: ArgumentParser, options: type, prefix: str = "") -> None:
    """Add a dataclass's fields as flags, with dashes for underscores unless there is a prefix."""
    words = {p.arg_name: p.description for p in parse_docstring(options.__doc__ or "").params}
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        flag = f"--{prefix}{field.name}" if prefix else f"--{field.name.replace('_', '-')}"
        if field.default is False:  # such a flag needs no value
            parser.add_argument(flag, action="store_true", help=words[field.name])
            continue
        parser.add_argument(flag, type=hints[field.name], default=field.default, help=words[field.name])


def add_choices(parser: ArgumentParser, function: Callable[..., Any]) -> None:
    """Add a function's keyword-only arguments as flags, with dashes for underscores.

    ``seed`` is left out: it is a flag already, the config's own.
    """
    words = {p.arg_name: p.description for p in parse_docstring(function.__doc__ or "").params}
    hints = typing.get_type_hints(function)
    for name, parameter in choices(function).items():
        flag = f"--{name.replace('_', '-')}"
        if name == "seed":
            continue
        if parameter.default is False:
            parser.add_argument(flag, action="store_true", help=words[name])
            continue
        parser.add_argument(flag, type=hints[name], default=parameter.default, help=words[name])


T = TypeVar("T")


def read_flags(options: type[T], namespace: Namespace, prefix: str = "") -> T:
    """The dataclass that the flags of :func:`add_flags` make."""
    return options(**{f.name: namespace[prefix + f.name] for f in dataclasses.fields(options)})


def parse_plain(
    prog: str, arguments: Sequence[str], *options: type, json: bool = True
) -> tuple[Namespace | None, list[Any]]:
    """The command line of a verb without a workload.

    Args:
        prog: The verb, as help shows it.
        arguments: What follows it.
        options: Dataclasses of its flags.
        json: Whether it has the flag ``--json``.

    Returns:
        All flags, ``json`` among them, and the dataclasses; None and nothing after printing help.

    Raises:
        ValueError: A flag is unknown, or a value wrong; one line.
    """
    parser = ArgumentParser(prog=prog, exit_on_error=False, allow_abbrev=False)
    if json:
        parser.add_argument("--json", action="store_true", help="Print the answer as JSON.")
    for cls in options:
        add_flags(parser, cls)
    if any(argument in ("-h", "--help") for argument in arguments):
        parser.print_help()
        return None, []
    known = list(_types(parser))
    for argument in arguments:
        flag = argument[2:].partition("=")[0]
        if argument.startswith("--") and flag not in known:
            near = nearest(flag, known)
            raise ValueError(f"no flag --{flag}" + (f"; did you mean --{near}?" if near else ""))
    try:
        namespace = parser.parse_args(list(arguments))
    except ArgumentError as error:
        raise ValueError(explain(parser, str(error), arguments)) from None
    return namespace, [read_flags(cls, namespace) for cls in options]


class Flags:
    """The command line of a verb that takes a workload.

    Args:
        verb: The verb.
        workload: The workload; its config's keys are flags.
        options: Dataclasses of further flags, by prefix.
    """

    def __init__(self, verb: str, workload: Workload, options: Mapping[str, Sequence[type]]) -> None:
        self.workload = workload
        self.parser = ArgumentParser(
            prog=f"raydeck {verb} {workload.name}",
            description=f"{workload.task}: {workload.model.__name__} on {workload.data.__name__}.",
            exit_on_error=False,
            allow_abbrev=False,
        )
        self.parser.add_argument("--config", help="YAML file of keys, as `raydeck show` prints it; flags override it.")
        self.parser.add_argument("--smoke", action="store_true", help="Use the workload's tiny setting.")
        self.parser.add_argument("--json", action="store_true", help="Print the answer as JSON.")
        for prefix, classes in options.items():
            for cls in classes:
                add_flags(self.parser, cls, prefix)
        workload.add_arguments(self.parser)

    def parse(self, arguments: Sequence[str], first: Overrides | None = None) -> tuple[Config, Namespace]:
        """The checked config, and all flags.

        Args:
            arguments: The command line.
            first: A layer below all that the user says.

        Raises:
            ValueError: A flag is unknown, or a value wrong; one line.
        """
        refuse_unknown(self.parser, self.workload, arguments)
        peeked, _ = _peek(arguments)
        layers: list[Overrides] = [first or {}]
        if peeked.smoke:
            layers.append(self.workload.smoke)
        if peeked.config:
            layers.append(self.workload.read(peeked.config))
        known = self.workload.keys()
        self.parser.set_defaults(flatten(self.workload.config(*layers), known))
        try:
            namespace = self.parser.parse_args(list(arguments))
        except ArgumentError as error:
            raise ValueError(explain(self.parser, str(error), arguments)) from None
        return to_config(namespace), namespace


def _types(parser: ArgumentParser) -> dict[str, Any]:
    """Flag, without dashes, to its declared type."""
    return {
        option[2:]: getattr(action, "_typehint", None) or action.type
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and action.help != argparse.SUPPRESS
    }


def refuse_unknown(parser: ArgumentParser, workload: Workload, arguments: Sequence[str]) -> None:
    """Raise ValueError for the first flag that there is not, naming the nearest one."""
    known = [flag for flag in _types(parser) if flag not in ("model", "data", "trainer")]
    for argument in arguments:
        flag = argument[2:].partition("=")[0]
        if not argument.startswith("--") or flag in known:
            continue
        if is_key(flag):
            workload.check_keys([flag])
        near = nearest(flag, known)
        raise ValueError(f"no flag --{flag}" + (f"; did you mean --{near}?" if near else ""))


def explain(parser: ArgumentParser, message: str, arguments: Sequence[str]) -> str:
    """jsonargparse's message of several lines as one of ours, where it is about a value."""
    for flag, kind in _types(parser).items():
        if f'"{flag.replace("-", "_")}"' in message and kind is not None:
            return "--" + wrong_value(flag, _value_of(flag, arguments), kind)
    return " ".join(message.split())


def _value_of(flag: str, arguments: Sequence[str]) -> str:
    given = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == f"--{flag}":
            given = following
        elif argument.startswith(f"--{flag}="):
            given = argument.partition("=")[2]
    return given


def _peek(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags that decide which layers there are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config")
    parser.add_argument("--smoke", action="store_true")
    try:
        return parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None
