"""Parameters that are plain text or numbers are read without pydantic.

typer 0.29 imports pydantic to read the first parameter of any command, also a default, which takes longer (200 to 300 ms on a slow
machine) than the rest of a command. What is plainly text, a number within its bounds or a list of texts is therefore read here;
anything else, above all what is wrong, goes typer's own way and gets typer's own words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from typing import Any

_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")


def read_plainly(command: Any) -> None:
    """Have the parameters of a command, or of a group and its commands, read so. `--help` is one that a command makes when it runs."""
    parameters_of = command.get_params

    def get_params(ctx: Any) -> Sequence[Any]:
        parameters: Sequence[Any] = parameters_of(ctx)
        for parameter in parameters:
            # A typer that doesn't ask this attribute any more reads everything itself: slower, with the same results.
            if parameter._runtime_param is None:
                parameter._runtime_param = _Plain()
        return parameters

    command.get_params = get_params
    for each in getattr(command, "commands", {}).values():
        read_plainly(each)


class _Plain:
    """What typer asks to coerce a parameter's value."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the parameter's annotation wants it."""
        info = param.type_descriptor.parameter_info
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if info.parser is None:
            fits, plain = _read(value, param.type_descriptor.annotation, info)
            if fits:
                return plain
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _read(value: Any, annotation: Any, info: Any) -> tuple[bool, Any]:
    """(whether it is plain, the value)."""
    if annotation is str:
        return isinstance(value, str), value
    if annotation == list[str]:
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value), list(value)
    if annotation not in (int, float):
        return False, None
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None or (annotation is int and "." in value):
            return False, None
        value = annotation(value)
    low, high = (-inf if info.min is None else info.min), (inf if info.max is None else info.max)
    return type(value) is annotation and low <= value <= high, value
