"""Checks of what users hand to the blocks of an agent class: made when the block is made, naming block, option and range."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

from .errors import DefinitionError


def refuses_one(function: Callable[..., object]) -> str:
    """Why a function can't be called with one argument; "" if it can, or if its signature isn't known."""
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        return str(error)
    except ValueError:  # of some built-in ones nothing is known
        pass
    return ""


def check_whole(block: str, option: str, value: object, least: int, most: int | None = None) -> None:
    """`DefinitionError` unless the value is a whole number in the range."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"from {least} to {most:,}"
        raise DefinitionError(f"{block}({option}={value!r}): a whole number, {allowed}")


def check_number(block: str, option: str, value: object, least: float, most: float) -> None:
    """`DefinitionError` unless the value is a number in the range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise DefinitionError(f"{block}({option}={value!r}): a number from {least:g} to {most:,g}")


def check_seconds(block: str, option: str, value: object) -> None:
    """`DefinitionError` unless the value is a finite number of seconds, more than 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise DefinitionError(f"{block}({option}={value!r}): seconds, a finite number, more than 0")


def check_exceptions(block: str, option: str, value: object, kind: type[BaseException]) -> None:
    """`DefinitionError` unless the value is a tuple of exception classes of a kind."""
    if not isinstance(value, tuple) or not all(isinstance(one, type) and issubclass(one, kind) for one in value):
        raise DefinitionError(f"{block}({option}={value!r}): a tuple of exception classes, for example (ConnectionError,)")
