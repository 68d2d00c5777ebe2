"""Events: every reader sees the same ones in the same order, each once, and none missing below what it has seen.

Operations: `append` (key: the stream; argument: the ids of its events; result: their positions) and `page` (key: the stream, or "*" for all;
argument: {"after": position, "to_end": whether it was read to the end; a follower's page isn't}; result: a list of [position, id]).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..histories import History, Operation
from .verdict import Contradiction, Verdict, contradiction

ALL = "*"


def check_events(history: History) -> Verdict:
    """Whether all pages tell one and the same story of the log, and it agrees with what was acknowledged."""
    operations = [operation for operation in history.operations if operation.kind in ("append", "page")]
    story = _Story(operations)
    found = [*story.wrong, *story.pages(), *story.appends()]
    return Verdict("events", len(operations), tuple(_once(found)))


def _once(found: list[Contradiction]) -> Iterator[Contradiction]:
    seen: set[tuple[str, str]] = set()
    for one in found:
        if (one.what, one.why) not in seen:
            seen.add((one.what, one.why))
            yield one


class _Place(NamedTuple):
    """An event where it is, and who says so."""

    position: int
    id: Any
    stream: str
    witness: Operation


class _Story:
    """What all together say of the log."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.wrong: list[Contradiction] = []
        self._pages = [operation for operation in operations if operation.kind == "page" and operation.outcome == "ok"]
        self._appends = [operation for operation in operations if operation.kind == "append"]
        self._by_id: dict[Any, _Place] = {}
        self._by_position: dict[int, _Place] = {}
        self._append_of = {id_: append for append in self._appends for id_ in append.argument}
        for append in self._appends:
            if append.outcome == "ok":
                for position, id_ in zip(append.result, append.argument, strict=True):
                    self._place(_Place(position, id_, append.key, append))
        for page in self._pages:
            for position, id_ in page.result:
                known = self._append_of.get(id_)
                self._place(_Place(position, id_, known.key if known is not None else page.key, page))
        self._streams: dict[str, list[int]] = {ALL: sorted(self._by_position)}
        for position in self._streams[ALL]:
            self._streams.setdefault(self._by_position[position].stream, []).append(position)

    def _place(self, place: _Place) -> None:
        there = self._by_position.setdefault(place.position, place)
        if there.id != place.id:
            self._say("reordered", f"position {place.position} holds {there.id!r} and {place.id!r}", there.witness, place.witness)
        known = self._by_id.setdefault(place.id, place)
        if known.position != place.position:
            twice = place.witness.kind == "page" and sum(id_ == place.id for _position, id_ in place.witness.result) > 1
            witnesses = [one for one in (known.witness, place.witness, self._append_of.get(place.id)) if one is not None]
            self._say("doubled" if twice else "moved", f"{place.id!r} is at {known.position} and at {place.position}", *witnesses)

    def _say(self, what: str, why: str, *operations: Operation) -> None:
        self.wrong.append(contradiction(what, why, operations))

    # -- pages -----------------------------------------------------------------------------------------------

    def pages(self) -> Iterator[Contradiction]:
        """What is wrong with single pages, and with one beside all the others."""
        seen_by: dict[tuple[str, str], Operation] = {}
        for page in self._pages:
            yield from self._of_page(page)
            yield from self._holes(page)
            yield from self._skipped(page, seen_by)

    def _of_page(self, page: Operation) -> Iterator[Contradiction]:
        last = page.argument["after"]
        for position, id_ in page.result:
            if position <= last:
                yield contradiction("out of order", f"{id_!r} at {position} comes after {last}", [page])
            last = max(last, position)
            append = self._append_of.get(id_)
            if append is None:
                yield contradiction("from nowhere", f"nobody ever appended {id_!r}", [page])
            elif append.outcome == "failed":
                yield contradiction("dirty read", f"{id_!r} is there although its append is known not to have happened", [append, page])
            elif append.start > page.end:
                yield contradiction("from the future", f"{id_!r} is there before anybody had asked to append it", [append, page])

    def _holes(self, page: Operation) -> Iterator[Contradiction]:
        """Whatever is known to be within the page's range is on it."""
        after = page.argument["after"]
        last = max((position for position, _id in page.result), default=after)
        positions = self._streams.get(page.key, [])
        on_it = {position for position, _id in page.result}
        for position in positions[bisect_right(positions, after) : bisect_right(positions, last)]:
            if position not in on_it:
                place = self._by_position[position]
                why = f"{place.id!r} at {position} isn't on a page from {after} to {last}"
                yield contradiction("hole", why, [place.witness, page])
        if page.argument.get("to_end"):
            yield from self._lost(page, positions[bisect_right(positions, last) :])

    def _lost(self, page: Operation, beyond: Sequence[int]) -> Iterator[Contradiction]:
        """A page that was read to the end has all that was acknowledged, or seen, before it was asked for."""
        for position in beyond:
            place = self._by_position[position]
            if place.witness.end < page.start:
                why = f"{place.id!r} at {position} had been acknowledged, or seen, and the log ended before it"
                yield contradiction("lost", why, [place.witness, page])

    def _skipped(self, page: Operation, seen_by: dict[tuple[str, str], Operation]) -> Iterator[Contradiction]:
        """A follower's next page goes on where its last one ended, or before."""
        if page.argument.get("to_end"):
            return
        before = seen_by.get((page.process, page.key))
        if page.result:
            seen_by[page.process, page.key] = page
        if before is None or page.argument["after"] <= before.result[-1][0]:
            return
        positions = self._streams.get(page.key, [])
        start, end = before.result[-1][0], page.argument["after"]
        for position in positions[bisect_right(positions, start) : bisect_right(positions, end)]:
            place = self._by_position[position]
            yield contradiction("hole", f"{page.process} went on behind {place.id!r} at {position}", [before, place.witness, page])

    # -- appends ---------------------------------------------------------------------------------------------

    def appends(self) -> Iterator[Contradiction]:
        """Order in the world is order in the log, and an append is there whole or not at all, its events side by side."""
        by_stream: dict[str, list[Operation]] = {}
        for append in self._appends:
            if append.outcome == "ok":
                by_stream.setdefault(append.key, []).append(append)
            yield from self._torn(append)
        for appends in by_stream.values():
            yield from _reordered(appends)

    def _torn(self, append: Operation) -> Iterator[Contradiction]:
        places = [self._by_id[id_] for id_ in append.argument if id_ in self._by_id]
        if not places:
            return
        stream = self._streams[append.key]
        first = bisect_left(stream, places[0].position)
        for number, place in enumerate(places):
            if first + number >= len(stream) or stream[first + number] != place.position:
                yield contradiction("torn", f"{place.id!r} isn't beside the others of its append", [append, place.witness])
                return
        if len(places) < len(append.argument):
            yield from self._halves(append)

    def _halves(self, append: Operation) -> Iterator[Contradiction]:
        """Pages that show a part of an append and that what should be beside it isn't."""
        for page in self._pages:
            if page.key not in (append.key, ALL):
                continue
            ids = [id_ for position, id_ in page.result if self._by_position[position].stream == append.key]
            own = [index for index, id_ in enumerate(ids) if self._append_of.get(id_) is append]
            if own and _lacks_a_part(append.argument, ids, own, page.argument):
                yield contradiction("torn", f"only {len(own)} of {len(append.argument)} events of an append are there", [append, page])
                return


def _lacks_a_part(appended: Sequence[Any], ids: Sequence[Any], own: Sequence[int], asked: dict[str, Any]) -> bool:
    """Whether the neighbours of an append's events, `own` among a page's, are others than should be there; at an end of the page nobody can tell."""
    whole = (asked["after"] == 0 or own[0] > 0, asked.get("to_end") or own[-1] < len(ids) - 1)
    inside = [ids[index] for index in own] != list(appended)[appended.index(ids[own[0]]) :][: len(own)]
    return inside or (whole[0] and ids[own[0]] != appended[0]) or (whole[1] and ids[own[-1]] != appended[-1])


def _reordered(appends: Sequence[Operation]) -> Iterator[Contradiction]:
    ended = sorted(appends, key=lambda append: append.end)
    place = 0
    highest: Operation | None = None
    for append in sorted(appends, key=lambda append: append.start):
        while place < len(ended) and ended[place].end < append.start:
            one = ended[place]
            place += 1
            highest = one if highest is None or one.result[-1] > highest.result[-1] else highest
        if highest is not None and append.result and append.result[0] < highest.result[-1]:
            why = f"{append.argument[0]!r} was appended after {highest.argument[-1]!r} and stands before it"
            yield contradiction("reordered", why, [highest, append])
