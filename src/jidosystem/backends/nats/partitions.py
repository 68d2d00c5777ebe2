"""The streams of the records: how many there are is written where every node reads it, in the first one's description.

The number of partitions decides where a record lies, so it is fixed when the cluster's first node makes the first
stream; a node that was told another number is refused. A stream that somebody made or changed so that our promises
don't hold (another storage, a reader that may be stale, messages that age) is refused too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...core.errors import InvalidConfig, StoreUnavailable, StoreVersion
from .jetstream import NO_STREAM, JetStream, Refused, creating, refusal
from .places import Subjects

FORMAT = 1
PARTITIONS_KEY, FORMAT_KEY = "jido.partitions", "jido.format"
DEFAULT_PARTITIONS = 4
MAX_PARTITIONS = 256
REPLICAS = (1, 3, 5)


class RecordsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the records of a new cluster lie; of one that exists it is known.

    Attributes:
        name: `records`, or `leases`: those of nodes lie apart, so that nothing else keeps them waiting
        partitions: streams over which agents are spread, fixed for ever; None: as it is; where nothing is 4, or 1 without replicas, since a server
            that holds a stream alone stages each batch in files: fewer and larger ones cost it less
        replicas: servers that hold each record, 1, 3 or 5; None: three in a cluster of servers, otherwise one
        max_bytes: of all records together, as they lie in the streams that are made; past it commits fail with `StoreFull`.
            Every server that holds them reserves so much
        commit_timeout_s: how long a commit is tried; then it fails
        attempt_timeout_s: how long one attempt's answer is waited for; then it is sent again, after a while with more and more patience
        max_waiting_bytes: of a partition's commits that aren't decided; what comes then is refused with `StoreUnavailable`
        read_timeout_s: how long a read is tried
        watch_period_s: how often a watched record is read although nothing said that it changed
    """

    name: str = "records"
    partitions: int | None = None
    replicas: int | None = None
    max_bytes: int = 4 * 1024**3
    commit_timeout_s: float = 30.0
    attempt_timeout_s: float = 2.0
    max_waiting_bytes: int = 256 * 1024**2
    read_timeout_s: float = 15.0
    watch_period_s: float = 1.0

    def __post_init__(self) -> None:
        if self.partitions is not None and not 1 <= self.partitions <= MAX_PARTITIONS:
            raise _invalid("partitions", self.partitions, f"1 to {MAX_PARTITIONS}")
        if self.replicas is not None and self.replicas not in REPLICAS:
            raise _invalid("replicas", self.replicas, "1, 3 or 5")


def _invalid(name: str, value: Any, allowed: str) -> InvalidConfig:
    return InvalidConfig(f"{name}={value!r}: {allowed} are possible", path=f"records.{name}", value=value, allowed=allowed)


async def open_partitions(jetstream: JetStream, settings: RecordsSettings) -> Subjects:
    """Make the streams if they aren't there, check them if they are. `InvalidConfig`: they are there with another number of partitions than
    this node was told; `StoreVersion`: they are no streams of ours, or a newer release made them."""
    cluster = jetstream.connection.settings.cluster
    first = Subjects(cluster, 1, settings.name).stream(0)
    described = await _describe(jetstream, first)
    if described is None:
        wanted = settings.partitions or (DEFAULT_PARTITIONS if _replicas(jetstream, settings) > 1 else 1)
        described = await _made(jetstream, Subjects(cluster, wanted, settings.name), 0, settings)
    partitions = _partitions_of(described, first)
    if settings.partitions not in (None, partitions):
        raise InvalidConfig(
            f"the records of cluster {cluster!r} lie in {partitions} partitions, and this node was told {settings.partitions}; the number is fixed",
            path="records.partitions",
            value=settings.partitions,
            allowed=str(partitions),
        )
    subjects = Subjects(cluster, partitions, settings.name)
    _check(described, subjects, 0)
    _check_replicas(described, subjects.stream(0), settings)
    for number in range(1, partitions):
        described = await _describe(jetstream, subjects.stream(number))
        if described is None:
            described = await _made(jetstream, subjects, number, settings)
        _check(described, subjects, number)
        _check_replicas(described, subjects.stream(number), settings)
    return subjects


async def _describe(jetstream: JetStream, stream: str) -> Mapping[str, Any] | None:
    try:
        return dict((await jetstream.api(f"STREAM.INFO.{stream}"))["config"])
    except Refused as refused:
        if refused.code == NO_STREAM:
            return None
        raise refusal(refused, f"stream {stream}") from refused


async def _made(jetstream: JetStream, subjects: Subjects, number: int, settings: RecordsSettings) -> Mapping[str, Any]:
    """Make a stream. Of nodes that start at once with different numbers the first one's counts: the others find its stream."""
    stream = subjects.stream(number)
    config = {
        **_fixed(subjects, number),
        "num_replicas": _replicas(jetstream, settings),
        "max_bytes": max(settings.max_bytes // subjects.partitions, 1024**2),
        "metadata": {PARTITIONS_KEY: str(subjects.partitions), FORMAT_KEY: str(FORMAT)},
    }
    try:
        return dict((await jetstream.api(f"STREAM.CREATE.{stream}", config))["config"])
    except Refused as refused:
        described = await _describe(jetstream, stream)
        if described is None:
            raise refusal(refused, creating(config)) from refused
        return described


def _replicas(jetstream: JetStream, settings: RecordsSettings) -> int:
    return settings.replicas or jetstream.replicas


def _fixed(subjects: Subjects, number: int) -> dict[str, Any]:
    """What our promises rest on."""
    return {
        "name": subjects.stream(number),
        "subjects": [subjects.everything(number)],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_age": 0,
        "max_msgs": -1,
        "allow_direct": False,
        "allow_atomic": True,
        "allow_msg_ttl": True,
    }


def _partitions_of(described: Mapping[str, Any], stream: str) -> int:
    told = described.get("metadata", {})
    try:
        partitions, form = int(told[PARTITIONS_KEY]), int(told[FORMAT_KEY])
    except (KeyError, ValueError):
        raise StoreVersion(f"stream {stream} isn't ours: it doesn't say how many partitions there are; nothing was touched") from None
    if form > FORMAT:
        raise StoreVersion(f"stream {stream} has format {form}, this release reads up to {FORMAT}: install the release that wrote it")
    return partitions


def _check(described: Mapping[str, Any], subjects: Subjects, number: int) -> None:
    wrong = {key: described.get(key) for key, wanted in _fixed(subjects, number).items() if (described.get(key) or None) != (wanted or None)}
    if wrong:
        raise StoreVersion(f"stream {subjects.stream(number)} isn't as records need it, somebody made or changed it: {wrong}; nothing was touched")
    if _partitions_of(described, subjects.stream(number)) != subjects.partitions:
        raise StoreUnavailable(f"stream {subjects.stream(number)} belongs to another number of partitions than {subjects.stream(0)} says")


def _check_replicas(described: Mapping[str, Any], stream: str, settings: RecordsSettings) -> None:
    there = int(described.get("num_replicas", 1))
    if settings.replicas not in (None, there):
        raise InvalidConfig(
            f"stream {stream} has {there} replicas, and this node was told {settings.replicas}: change the streams (`nats stream edit --replicas`), "
            "or don't tell the node",
            path="records.replicas",
            value=settings.replicas,
            allowed=str(there),
        )
