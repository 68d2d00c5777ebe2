"""Mistakes in definitions are reported at the line that made them.

A refused class, decorator or block names the file and line of its user, and its traceback ends there: what we looked at on the way
is nobody's business. The line is found in the source (the annotation, the method, the assignment) if there is a source.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import re
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, cast

from .errors import DefinitionError, UsageError
from .near import near_or_all
from .traces import users_frame

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Place = tuple[str, int]


def blame(error: UsageError, place: Place | None) -> None:
    """Say in the message which line made a mistake, and leave out our frames. Follow it with a bare `raise`."""
    if place is not None and "line" not in error.fields:
        file, line = place
        error.args = (f"{error.args[0]} ({file}:{line})",)
        error.fields.update(file=file, line=line)
        error.file, error.line = file, line  # type: ignore[attr-defined]
    error.__cause__, error.__suppress_context__ = None, True  # its text is in the message
    error.__traceback__ = None


class _UsersLine:
    """`with users_line:` around the body of a function that users call in a definition: its mistakes are theirs."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if isinstance(error, UsageError):
            frame = users_frame()
            blame(error, None if frame is None else (frame.f_code.co_filename, frame.f_lineno))


users_line = _UsersLine()


class about:  # noqa: N801 - reads as a word: `with about("value"):`
    """`with about(name):` around a look at one member of a class: errors know which it was, the innermost look counts."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if isinstance(error, UsageError):
            error.fields.setdefault("member", self._name)


def block(cls: type[T]) -> type[T]:
    """Decorate a block of an agent class: what is refused is refused at its user's line, options that it doesn't have too."""
    options = tuple(cls.__dataclass_fields__)  # type: ignore[attr-defined]

    def reporting(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
        @functools.wraps(function)
        def make(self: Any, *args: Any, **kwargs: Any) -> Any:
            with users_line:
                for name in kwargs:
                    if name not in names:
                        raise DefinitionError(f"{cls.__name__}({name}=…): there is no such option{near_or_all(name, names, 'there are')}")
                return function(self, *args, **kwargs)

        return make

    cls.__init__ = reporting(cls.__init__, options)  # type: ignore[method-assign]
    for name, member in tuple(vars(cls).items()):
        if isinstance(member, classmethod):
            function = member.__func__
            code = function.__code__
            setattr(cls, name, classmethod(reporting(function, code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])))
    return cls


def called(example: str) -> Callable[[F], F]:
    """Decorate a function that makes a decorator: used bare, or with options that it doesn't have, it is refused at its user's line."""

    def checking(make: F) -> F:
        signature = inspect.signature(make)

        @functools.wraps(make)
        def checked(*args: Any, **kwargs: Any) -> Any:
            with users_line:
                try:
                    signature.bind(*args, **kwargs)
                except TypeError as error:
                    raise DefinitionError(f"@{make.__name__}{_refused(error, signature, args, kwargs)}; write for example {example}") from None
                return make(*args, **kwargs)

        return cast("F", checked)

    return checking


def _refused(error: TypeError, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if len(args) == 1 and not kwargs and (callable(args[0]) or isinstance(args[0], staticmethod | classmethod)):
        return " needs its options"
    for name in kwargs:
        if name not in signature.parameters:
            return f"({name}=…): there is no such option{near_or_all(name, signature.parameters, 'there are')}"
    return f": {error}"


# -- lines of a class ------------------------------------------------------------------------------------------------


def place_of(cls: type, member: str | None) -> Place | None:
    """Where a member of a class is written: its annotation, `def` or assignment; else where the class is."""
    frame = users_frame()
    statement = None if frame is None else (frame.f_code.co_filename, frame.f_lineno)
    owner = _owner(cls, member)
    file, near_line = statement if statement is not None and owner is cls else (_file_of(owner), 0)
    node = _class_node(file, owner.__name__, near_line)
    if node is None:
        return _of_code(cls, member) or statement
    found = _member_node(node, member)
    return file, (node if found is None else found).lineno


def member_with(cls: type, word: str | None) -> str | None:
    """The field whose type hint uses a word."""
    hints = inspect.get_annotations(cls).items()
    return next((name for name, hint in hints if word and re.search(rf"\b{re.escape(word)}\b", str(hint))), None)


def _owner(cls: type, member: str | None) -> type:
    """The class that a member stands in: this one, or a base that isn't ours."""
    for base in cls.__mro__:
        if member is not None and (member in base.__dict__ or member in inspect.get_annotations(base)):
            return base
    return cls


def _file_of(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or ""


def _class_node(file: str, name: str, line: int) -> ast.ClassDef | None:
    """The `class` statement of a name that a line belongs to; without one, the last of that name."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError):
        return None
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name]
    if line:
        nodes = [node for node in nodes if min([node.lineno, *(d.lineno for d in node.decorator_list)]) <= line <= (node.end_lineno or line)]
    return max(nodes, key=lambda node: node.lineno, default=None)


def _member_node(node: ast.ClassDef, member: str | None) -> ast.stmt | None:
    """The last statement in a class that gives a member; fields first by their annotation."""
    found: ast.stmt | None = None
    for statement in ast.walk(node):
        targets: list[ast.expr] = []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        elif isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == member:
            found = statement
        if any(isinstance(target, ast.Name) and target.id == member for target in targets):
            assert isinstance(statement, ast.stmt)
            found = statement
    return found


def _of_code(cls: type, member: str | None) -> Place | None:
    function = getattr(cls, member, None) if member is not None else None
    code = getattr(getattr(function, "__jido_sync__", function), "__code__", None)
    return None if code is None else (code.co_filename, code.co_firstlineno)
