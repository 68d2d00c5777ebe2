"""Where records lie: an agent's partition, and the subjects of its head, rows and parts.

    <cluster>.s<partition>.<type>.<key>.h                      the head
    <cluster>.s<partition>.<type>.<key>.<kind>.<name>          a row
    <cluster>.s<partition>.<type>.<key>.p.<of>.<number>        a part of one that is larger than a message
    <cluster>.s<partition>.mark                                what a listing waits for

Leases of nodes lie in a stream of their own, `<cluster>.l0.…`. The number of tokens says which it is. Where a token is a digest
(`subjects.py`), what the text was stands in the message.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

from .subjects import text_of, token

NO_KEY = "!-"  # an address without a slash
SWEEP = "!s"
"""Kind of the row that a deletion leaves where more is to be removed than fits a batch; no row of ours can have it."""


class Place(NamedTuple):
    """Where an agent lies.

    Attributes:
        partition: number of its stream
        root: start of all its subjects
        head: subject of its head
    """

    partition: int
    root: str
    head: str


def partition_of(agent: str, partitions: int) -> int:
    """The same on every node and in every release: it says where the record is."""
    return crc32(agent.encode()) % partitions


LETTERS = {"records": "s", "leases": "l"}


class Subjects:
    """All subjects of one cluster's records, or of its leases."""

    def __init__(self, cluster: str, partitions: int, name: str = "records") -> None:
        self.cluster, self.partitions = cluster, partitions
        self._streams, self._first = f"{cluster}-{name}", f"{cluster}.{LETTERS[name]}"
        self.place = lru_cache(maxsize=100_000)(self._place)

    def _place(self, agent: str) -> Place:
        type_name, slash, key = agent.partition("/")
        partition = partition_of(agent, self.partitions)
        root = f"{self._first}{partition}.{token(type_name)}.{token(key) if slash else NO_KEY}"
        return Place(partition, root, f"{root}.h")

    def stream(self, partition: int) -> str:
        """Name of a partition's stream."""
        return f"{self._streams}-{partition}"

    def everything(self, partition: int) -> str:
        """What the stream of a partition takes."""
        return f"{self._first}{partition}.>"

    def mark(self, partition: int) -> str:
        """What a listing waits for."""
        return f"{self._first}{partition}.mark"

    def row(self, agent: str, kind: str, name: str) -> str:
        """Subject of a row."""
        return f"{self._root(agent)}.{token(kind)}.{token(name)}"

    def rows_of(self, agent: str, kind: str | None) -> str:
        """Pattern of the rows of one agent, of one kind or of all."""
        return f"{self._root(agent)}.{'*' if kind is None else token(kind)}.*"

    def sweep(self, agent: str) -> str:
        """Subject of the row that says that more is to be removed."""
        return f"{self._root(agent)}.{SWEEP}.="

    def sweeps(self, partition: int) -> str:
        """Pattern of those of all agents."""
        return f"{self._first}{partition}.*.*.{SWEEP}.*"

    def rows(self, partition: int, kind: str | None = None) -> str:
        """Pattern of the rows of all agents, of one kind or of all."""
        return f"{self._first}{partition}.*.*.{'*' if kind is None else token(kind)}.*"

    def heads(self, partition: int, type_name: str) -> str:
        """Pattern of the heads of one type."""
        return f"{self._first}{partition}.{token(type_name)}.*.h"

    def parts(self, partition: int) -> str:
        """Pattern of all parts."""
        return f"{self._first}{partition}.*.*.p.*.*"

    def agent_in(self, subject: str) -> str:
        """The address of the agent whose subject it is, for those that can't be read; parts of it that only the message knows stay as they are."""
        type_name, key = subject.split(".")[2:4]
        address = text_of(type_name)
        address = type_name if address is None else address
        return address if key == NO_KEY else f"{address}/{key if text_of(key) is None else text_of(key)}"

    def describe(self, subject: str) -> str:
        """What lies at a subject, in words."""
        tokens = subject.split(".")
        if is_head(subject):
            return f"the record of {self.agent_in(subject)}"
        if is_part(subject):
            return f"a part of what is stored of {self.agent_in(subject)}"
        kind, name = (one if text_of(one) is None else text_of(one) for one in tokens[4:6])
        return f"the row {kind}/{name} of {self.agent_in(subject)}"

    def _root(self, agent: str) -> str:
        return str(self.place(agent).root)


def part(subject: str, number: int) -> str:
    """Subject of a part of what is stored at a subject of ours."""
    whole = subject.split(".")
    of = "h" if len(whole) == 5 else blake2b(".".join(whole[4:]).encode(), digest_size=16).hexdigest()
    return f"{'.'.join(whole[:4])}.p.{of}.{number}"


def root_of(subject: str) -> str:
    """Start of all subjects of the agent whose subject it is."""
    return ".".join(subject.split(".", 4)[:4])


def is_head(subject: str) -> bool:
    """Whether a subject is that of a head."""
    return subject.count(".") == 4


def is_part(subject: str) -> bool:
    """Whether a subject is that of a part."""
    return subject.count(".") == 6


def name_in(subject: str) -> str | None:
    """The name of the row whose subject it is; None if only its message knows."""
    return text_of(subject.rpartition(".")[2])
