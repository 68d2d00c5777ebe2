"""The reference says what is there: every public name, with the signature that the code has, and nothing else.

A line `::: jidosystem.Name` makes the site show the docstrings of that object and of its public members, with their signatures:
each is an entry. So is a heading `### \\`Name\\`` or `### \\`Class.member\\``, written by hand, with a text block that holds the
signature. Errors, config keys, metrics and spans stand in tables.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import jidosystem
from jidosystem import errors, testing
from jidosystem.core import clock, config, config_schema, log, records, wire
from jidosystem.runtime.effects import Effects
from jidosystem.testing import conformance

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "reference"

# What isn't exported by name, but is met in the signatures of what is, or fulfilled by an adapter.
MET = {
    "Clock": clock.Clock,
    "ConfigVersion": config.ConfigVersion,
    "ConfigWatch": config.ConfigWatch,
    "EventLog": log.EventLog,
    "Records": records.Records,
    "Served": wire.Served,
    "Wire": wire.Wire,
    **{name: getattr(records, name) for name in ("Committed", "Record", "Row", "StoredRow")},
}
PUBLIC: dict[str, Any] = {
    **{name: getattr(jidosystem, name) for name in jidosystem.__all__},
    **{name: getattr(conformance, name) for name in conformance.__all__},
    **{name: getattr(testing, name) for name in testing.__all__},
    **MET,
}
FOREIGN = {"field"}  # another library's function
MADE = {"Agents", "Config", "ConfigWatch", "DeadLetters", "EventBus", "Stuck", "Subscription"}
"""Only the platform makes these: nothing is said of their constructors, nor of the methods by which it drives them."""
DRIVEN = {
    "Config.close", "Config.load", "Config.take", "DeadLetters.bury", "DeadLetters.forget", "DeadLetters.register", "EventBus.close",
    "EventBus.start", "Faults.of_commit", "Faults.of_message", "Faults.of_read", "SimulatedNats.arrival_s", "SimulatedNats.disk",
    "SimulatedNats.draws", "SimulatedNats.heard", "SimulatedNats.is_leaderless",
    "SimulatedNats.late_s", "SimulatedNats.link", "SimulatedNats.reaches",
}  # fmt: skip
DERIVED = {
    "TestPlatform": jidosystem.Platform, "FaultyRecords": records.Records, "FaultyWire": wire.Wire, "NodeWire": wire.Wire,
    "VirtualLoop": object, "SimulatedRecords": records.Records, "SimulatedLog": log.LogApart,
    "ClusterNode": jidosystem.Platform,
}  # fmt: skip
"""What these have of the classes that they derive from is said there; a loop is asyncio's."""
TABLED = {"errors"}  # a module, whose names stand in a table
RAISED = {"JidoError", "Rejected", "Transient"}  # errors that have an entry too, since programs raise or catch all by them


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, errors.JidoError)


def is_value(value: object) -> bool:
    """A value that only the platform makes: its fields matter, not its constructor."""
    return isinstance(value, type) and (issubclass(value, msgspec.Struct) or (issubclass(value, tuple) and hasattr(value, "_fields")))


# -- what the pages say --------------------------------------------------------------------------------------------


def pages() -> list[Path]:
    return sorted(REFERENCE.glob("*.md"))


def entries() -> dict[str, str]:
    """What is said of each name: a docstring, or the text below a heading."""
    return generated() | written()


def generated() -> dict[str, str]:
    """The docstring of each name that a line `::: path` shows."""
    found: dict[str, str] = {}
    for page in pages():
        for path, options in re.findall(r"^::: ([\w.]+)\n((?:    .*\n)*)", page.read_text(), flags=re.MULTILINE):
            name = path.rpartition(".")[2]
            value = PUBLIC[name]
            assert pkgutil.resolve_name(f"{path.rpartition('.')[0]}:{name}") is value, path
            left_out = re.findall(r'- "!(.+)"', options)
            members = list(dict.fromkeys(members_of(value))) if isinstance(value, type) else []
            shown = [member for member in members if not any(re.search(pattern, member) for pattern in left_out)]
            for entry in (name, *(f"{name}.{member}" for member in shown)):
                assert entry not in found, f"{entry} stands twice"
                found[entry] = docstring(entry)
    return found


def docstring(name: str) -> str:
    owner_name, _, member_name = name.rpartition(".")
    value = inspect.getattr_static(PUBLIC[owner_name], member_name) if owner_name else PUBLIC[name]
    return inspect.cleandoc(getattr(value, "__doc__", None) or "")


def written() -> dict[str, str]:
    """The text below each heading that names something."""
    found: dict[str, str] = {}
    for page in pages():
        parts = re.split(r"^(#{2,3} .+)$", page.read_text(), flags=re.MULTILINE)
        for heading, text in zip(parts[1::2], parts[2::2], strict=True):
            match = re.fullmatch(r"### `([\w.]+)`", heading)
            if match is not None:
                assert match[1] not in found, f"{match[1]} stands twice"
                found[match[1]] = text
    return found


def table(page: str, *columns: str) -> list[list[str]]:
    """The rows of every table of a page that has these columns, without backticks."""
    rows: list[list[str]] = []
    inside = False
    for line in (REFERENCE / page).read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells == list(columns):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not set(line) <= set("|- "):
            rows.append([re.sub(r"\[(.+?)\]\(.+?\)", r"\1", cell).replace("`", "").replace("\\|", "|") for cell in cells])
    assert rows, f"{page} has no table {columns}"
    return rows


def signature_in(text: str) -> str | None:
    match = re.search(r"```text\n(.*?)```", text, flags=re.DOTALL)
    return squeezed(match[1]) if match is not None else None


# -- what the code says --------------------------------------------------------------------------------------------


def squeezed(text: str) -> str:
    """Without line breaks and what they bring with them."""
    return re.sub(r",\)", ")", re.sub(r"(?<=[(\[]) | (?=[)\]])", "", re.sub(r"\s+", " ", text.strip())))


def told(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", None) or inspect.formatannotation(annotation)
    return text.replace("builtins.", "")


def parameters_of(function: Any, *, bound: bool) -> str:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    parts: list[str] = []
    for i, parameter in enumerate(parameters):
        if parameter.kind is parameter.KEYWORD_ONLY and not any(p.kind in (p.VAR_POSITIONAL, p.KEYWORD_ONLY) for p in parameters[:i]):
            parts.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f" = {default_of(parameter.default)}"
        parts.append(f"{stars}{parameter.name}: {told(parameter.annotation)}{default}")
        if parameter.kind is parameter.POSITIONAL_ONLY and (i + 1 == len(parameters) or parameters[i + 1].kind is not parameter.POSITIONAL_ONLY):
            parts.append("/")
    returns = "" if signature.return_annotation in (signature.empty, None, "None") else f" -> {told(signature.return_annotation)}"
    return f"({', '.join(parts)}){returns}"


def default_of(value: Any) -> str:
    if isinstance(value, tuple):
        inner = ", ".join(v.__name__ if isinstance(v, type) else repr(v) for v in value)
        return f"({inner})"
    return repr(value).replace("'", '"') if isinstance(value, str) else repr(value)


def signature_of(name: str) -> str | None:
    """The line that the reference has for a name; None if it has a table of fields instead."""
    owner_name, _, member_name = name.rpartition(".")
    if not owner_name:
        value = PUBLIC[name]
        if is_value(value) or name in FOREIGN | MADE or value in MET.values():
            return None
        if isinstance(value, type):
            if getattr(value, "_is_protocol", False) or inspect.isabstract(value):
                return None
            if value.__init__ is object.__init__:
                return f"{name}()"
            return f"{name}{parameters_of(value.__init__, bound=True)}"
        return f"{name}{parameters_of(value, bound=False)}"
    owner = PUBLIC[owner_name]
    member = inspect.getattr_static(owner, member_name)
    if isinstance(member, property):
        return f"{name}: {told(inspect.signature(member.fget).return_annotation)}"
    if isinstance(member, classmethod | staticmethod):
        return f"{name}{parameters_of(member.__func__, bound=isinstance(member, classmethod))}"
    if not inspect.isfunction(member):
        return None
    return f"{'async ' if inspect.iscoroutinefunction(member) else ''}{name}{parameters_of(member, bound=True)}"


def members_of(value: type) -> Iterator[str]:
    """The public methods and properties of a class, its own and those of bases of ours."""
    if value is testing.VirtualLoop:
        return
    inherited = DERIVED.get(value.__name__, object)
    for base in value.__mro__:
        if base.__module__.startswith("jidosystem") and base not in inherited.__mro__:
            for name, member in vars(base).items():
                if name.startswith(("_", "test_")) or not (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)):
                    continue
                if not hasattr(inherited, name):
                    yield name


def attributes_of(value: type) -> list[str]:
    """What has no entry of its own and is said in that of its class: attributes of a protocol or of what the platform makes."""
    if getattr(value, "_is_protocol", False):
        return [name for name in inspect.get_annotations(value) if not name.startswith("_")]
    slots = value.__dict__.get("__slots__", ())
    return [name for name in slots if not name.startswith("_")] if value.__name__ in MADE else []


def all_errors() -> set[type]:
    """The whole tree, wherever its branches grow."""
    for module in pkgutil.walk_packages(jidosystem.__path__, "jidosystem."):
        if ".testing" not in module.name:
            importlib.import_module(module.name)
    found: set[type] = set()
    waiting: list[type] = [errors.JidoError]
    while waiting:
        kind = waiting.pop()
        found.add(kind)
        waiting += [below for below in kind.__subclasses__() if below.__module__.startswith("jidosystem.")]
    return found


def expected_entries() -> set[str]:
    names = {name for name, value in PUBLIC.items() if not is_error(value) and name not in TABLED}
    for name in tuple(names):
        value = PUBLIC[name]
        if isinstance(value, type):
            names |= {f"{name}.{member}" for member in members_of(value)}
    return (names | RAISED) - DRIVEN


# -- entries -------------------------------------------------------------------------------------------------------


def test_every_public_name_has_its_entry() -> None:
    assert expected_entries() - set(entries()) == set()


def test_every_entry_is_there_in_the_code() -> None:
    assert set(entries()) - expected_entries() == set()


def test_nothing_is_said_twice() -> None:
    assert set(generated()) & set(written()) == set()


@pytest.mark.parametrize("name", sorted(written()))
def test_written_signatures_are_those_of_the_code(name: str) -> None:
    expected = signature_of(name)
    if expected is not None:
        assert signature_in(written()[name]) == squeezed(expected)


@pytest.mark.parametrize("name", sorted(name for name, value in PUBLIC.items() if is_value(value)))
def test_values_have_the_fields_of_the_code(name: str) -> None:
    value = PUBLIC[name]
    assert attributes_in(entries()[name]) == list(getattr(value, "__struct_fields__", None) or value._fields)


def attributes_in(text: str) -> list[str]:
    """The fields that a docstring's section "Attributes:", or a table written by hand, names."""
    section = re.search(r"^Attributes:\n((?:    .*\n?)+)", text, flags=re.MULTILINE)
    return (
        re.findall(r"^    (\w+): .", section[1], flags=re.MULTILINE)
        if section is not None
        else re.findall(r"^\| `(\w+)` \| `.+?` \| ", text, flags=re.MULTILINE)
    )


@pytest.mark.parametrize("name", sorted(name for name, value in PUBLIC.items() if isinstance(value, type) and attributes_of(value)))
def test_attributes_without_an_entry_are_named_by_their_class(name: str) -> None:
    assert [field for field in attributes_of(PUBLIC[name]) if f"`{field}`" not in entries()[name]] == []


def test_every_effect_of_an_agent_without_a_platform_is_named() -> None:
    rows = re.findall(r"^- (`.+?`): ", entries()["Agent.effects"], flags=re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(Effects.__slots__)


@pytest.mark.parametrize("name", sorted(expected_entries()))
def test_an_entry_says_something(name: str) -> None:
    prose = re.sub(r"```.*?```", "", entries()[name], flags=re.DOTALL)
    assert len(prose.split()) >= 4


# -- tables --------------------------------------------------------------------------------------------------------


def test_the_errors_are_those_of_the_code() -> None:
    rows = table("errors.md", "error", "code", "below", "fields", "meaning")
    assert {(name, code, base, fields) for name, code, base, fields, _meaning in rows} == {
        (kind.__name__, kind.code, kind.__bases__[0].__name__, ", ".join(fields_of(kind))) for kind in all_errors()
    }
    assert len(rows) == len({name for name, *_ in rows})


def test_all_errors_are_found_in_one_module() -> None:
    assert {kind.__module__ for kind in all_errors()} == {errors.__name__}


def test_where_an_errors_fields_are_named_they_are_its_own() -> None:
    for name, _code, _base, _fields, meaning in table("errors.md", "error", "code", "below", "fields", "meaning"):
        for field in fields_of(getattr(errors, name)):
            assert field in meaning or field in ("expected", "code", "outcome_known"), f"{name}: {field} isn't explained"


def fields_of(kind: type) -> list[str]:
    """Annotated facts and properties of an error class itself."""
    own = [name for name, member in vars(kind).items() if isinstance(member, property) and not name.startswith("_")]
    return [name for name, hint in inspect.get_annotations(kind).items() if "ClassVar" not in str(hint)] + own


def test_error_codes_are_told_apart() -> None:
    codes = [kind.code for kind in all_errors()]
    assert len(codes) == len(set(codes))


def test_the_config_keys_are_those_of_the_code() -> None:
    rows = table("config.md", "key", "default", "allowed", "when", "meaning")
    documented = {key: (default, when) for key, default, _allowed, when, _meaning in rows}
    assert documented == {
        f"{section}.{key}": (told_default(getattr(model(), key)), "start" if f"{section}.{key}" in config_schema.FIXED else "any time")
        for section, model in config_schema.SECTIONS.items()
        for key in model.__struct_fields__
    }


def told_default(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return f"{value:,g}" if isinstance(value, int | float) and value < 1e5 else f"{value:,.0f}" if isinstance(value, int | float) else str(value)


async def test_the_metrics_are_those_of_the_code() -> None:
    rows = table("observability.md", "metric", "kind", "labels", "meaning")

    class Counter(jidosystem.Agent):
        value: int = 0

    async with jidosystem.Platform(agents=[Counter]) as platform:
        text = platform.metrics()
    exported = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, flags=re.MULTILINE))
    labelled = set(re.findall(r"^(\w+?)(?:_bucket|_count|_sum)?\{agent_type=", text, flags=re.MULTILINE))
    assert {(name, kind, labels) for name, kind, labels, _meaning in rows} == {
        (name, kind, "agent_type" if name in labelled else "") for name, kind in exported.items()
    }


async def test_the_spans_are_those_of_the_code() -> None:
    rows = table("observability.md", "span", "attributes", "is")
    documented = {(name, attributes) for name, attributes, _is in rows}
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra `otel` isn't installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, spans = sdk.TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(spans))

    class Counter(jidosystem.Agent):
        value: int = 0

        @jidosystem.action
        async def add(self) -> None:
            self.value += 1

    async with jidosystem.Platform(tracer_provider=provider) as platform:
        await platform.agent(Counter, "a").add()
    assert documented == {
        (span.name.replace("Counter.add", "<type>.<action>"), ", ".join(span.attributes or ())) for span in spans.get_finished_spans()
    }


# -- links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), flags=re.MULTILINE)
            anchors = {*re.findall(r"^::: ([\w.]+)$", there.read_text(), flags=re.MULTILINE)}
            anchors |= {
                f"{path.rpartition('.')[0]}.{name}"
                for path in anchors
                for name in expected_entries()
                if name.startswith(path.rpartition(".")[2] + ".")
            }
            anchors |= {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name}: {target}"


def test_every_page_can_be_reached() -> None:
    seen: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
        waiting += [page.parent / target for target in targets if not target.startswith("http") and (page.parent / target).exists()]
    assert {page.relative_to(DOCS) for page in map(Path.resolve, DOCS.rglob("*.md")) if page not in seen} == set()
