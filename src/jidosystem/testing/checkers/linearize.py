"""Whether a register could have done what a history says: one order of its operations that explains every answer.

The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993) with Lowe's just-in-time linearization and
memoisation ("Testing for linearizability", 2017). It walks along the history and keeps all *configurations* that explain it so
far: the register's value and which of the operations under way have taken effect. An operation takes effect no
earlier than some answer needs it. What keeps their number small, none of which loses an explanation:

- What reads takes effect as soon as the value fits: waiting gains nothing.
- A value can't be left while somebody still has to read it and nobody is left to write it again.
- A write all of whose readers are under way, with the compare-and-sets that follow from it, takes effect just before the next plain
  write: nobody who comes later needs it.
- Of two writes of one value the one that is answered first takes effect first.
- What may never have happened counts only where it is needed: of two configurations that differ in nothing else, the one that used less.

Where each value is written once this leaves one configuration. Otherwise their number is bounded, and a search that ran into the bound and
failed says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf

from .configurations import OTHER, Configuration, Dead, Kind, Step, clear, events_of, in_order, likeliest, thriftiest

MAX_CONFIGURATIONS = 2_000
NONE: Counter[int] = Counter()


class Search:
    """One search through the history of one register. `hide`: let writes that nobody needs any more take effect at once; where `avoids` occur
    that can lose an explanation.
    """

    def __init__(self, steps: Sequence[Step], initial: int, *, hide: bool = True, most: int = MAX_CONFIGURATIONS) -> None:
        self._events = events_of(steps)
        self._hide, self._most = hide, most
        self._cut = hide and any(step.avoids is not None for step in steps)
        self._reserve = self._cut
        self._alike: dict[int, int] = {}  # values that nobody minds any more
        self._configurations: set[Configuration] = {(initial, 0, ())}
        self._slots: dict[Step, int] = {}
        self._free: list[int] = []
        self._writers: dict[int, Step] = {}  # bit -> under way, changes the value
        self._reads: Counter[int] = Counter()  # value -> bits of those under way that only read it
        self._follows: dict[int, dict[int, Step]] = {}  # value -> bit -> a compare-and-set under way from it
        self._given: Counter[int] = Counter()  # value -> bits of those under way that write it
        self._avoids: Counter[int] = Counter()
        self._to_avoid: Counter[int] = Counter(step.avoids for step in steps if step.avoids is not None)
        self._lasting = 0  # bits of those that are never answered
        self._maybe: dict[int | None, Counter[int]] = {}  # optional ones that were asked for: what they need -> what they give
        self._kinds: Counter[Kind] = Counter((step.needs, step.gives) for step in steps if step.optional and step.gives is not None)
        self._maybe_gives: Counter[int] = Counter(step.gives for step in steps if step.optional and step.gives is not None)
        self._maybe_needs: Counter[int] = Counter(step.needs for step in steps if step.optional and step.needs is not None)
        self._to_need: Counter[int] = Counter(step.needs for step in steps if not step.optional and step.needs is not None)
        self._to_give: Counter[int] = Counter(step.gives for step in steps if not step.optional and step.gives is not None)

    def run(self) -> Dead | None:
        """None: there is an explanation."""
        for step, begins in self._events:
            if begins:
                self._begin(step)
                continue
            before = self._configurations
            if not self._end(step):
                return Dead(step, tuple(sorted({value for value, _done, _used in before})), not self._cut)
        return None

    # -- the walk --------------------------------------------------------------------------------------------

    def _begin(self, step: Step) -> None:
        if step.optional:
            assert step.gives is not None
            gives = self._alike.get(step.gives, step.gives)
            if (step.needs, gives) in self._kinds:
                self._maybe.setdefault(step.needs, Counter())[gives] += 1
            return
        bit = self._free.pop() if self._free else 1 << len(self._slots)
        self._slots[step] = bit
        if step.needs is not None:
            self._to_need[step.needs] -= 1
        if step.gives is not None:
            self._begin_writer(step, bit, step.gives)
            return
        found = self._avoids if step.avoids is not None else self._reads
        value = step.avoids if step.avoids is not None else step.needs
        assert value is not None
        found[value] |= bit
        self._configurations = {
            (now, done | bit, used) if (now == value) is (step.avoids is None) else (now, done, used) for now, done, used in self._configurations
        }

    def _begin_writer(self, step: Step, bit: int, gives: int) -> None:
        self._to_give[gives] -= 1
        self._given[gives] |= bit
        self._writers[bit] = step
        if step.needs is not None:
            self._follows.setdefault(step.needs, {})[bit] = step
        if step.end == inf:
            self._lasting |= bit

    def _end(self, step: Step) -> bool:
        bit = self._slots[step]
        done = {configuration for configuration in self._configurations if configuration[1] & bit}
        done |= self._until(self._configurations - done, step, bit)
        self._configurations = self._trimmed(done)
        self._forget(step, bit)
        if self._lasting:
            self._forget_lasting()
        return bool(self._configurations)

    def _forget(self, step: Step, bit: int) -> None:
        """A step that has taken effect in all configurations is of no more interest."""
        self._configurations = {(value, done & ~bit, used) for value, done, used in self._configurations}
        del self._slots[step]
        self._free.append(bit)
        if step.gives is None:
            found = self._avoids if step.avoids is not None else self._reads
            value = step.avoids if step.avoids is not None else step.needs
            assert value is not None
            clear(found, value, bit)
            if step.avoids is not None:
                self._avoided(value)
            return
        clear(self._given, step.gives, bit)
        del self._writers[bit]
        if step.needs is not None:
            del self._follows[step.needs][bit]

    def _avoided(self, value: int) -> None:
        """One less will avoid a value. When nobody does, or needs it, whatever may write it may as well write any other such."""
        self._to_avoid[value] -= 1
        if self._to_avoid[value] or not self._maybe_gives[value] or self._needed(value, 0) or self._maybe_needs[value]:
            return
        for kind in [kind for kind in self._kinds if kind[1] == value]:
            self._kinds[kind[0], OTHER] += self._kinds.pop(kind)
            if kind[0] in self._maybe:
                self._maybe[kind[0]][OTHER] += self._maybe[kind[0]].pop(value, 0)
        self._alike[value] = OTHER
        self._maybe_gives[OTHER] += self._maybe_gives.pop(value)
        self._configurations = {
            (now, done, in_order((needs, OTHER if gives == value else gives) for needs, gives in used)) for now, done, used in self._configurations
        }

    def _forget_lasting(self) -> None:
        common = self._lasting
        for _value, done, _used in self._configurations:
            common &= done
        while common:
            bit = common & -common
            common ^= bit
            self._lasting ^= bit
            self._forget(self._writers[bit], bit)

    def _trimmed(self, found: set[Configuration]) -> set[Configuration]:
        """Without those that used more than they had to, and not too many."""
        if any(used for _value, _done, used in found):
            found = self._without_common(thriftiest(self._without_past(found)))
        if len(found) > self._most:
            self._cut = True
            found = set(likeliest(found)[: self._most])
        return found

    def _without_past(self, found: set[Configuration]) -> set[Configuration]:
        """Whether something was used whose condition can never hold again is of no more interest."""
        values = {value for value, _done, _used in found}
        common = ~0
        for _value, done, _used in found:
            common &= done
        past = {kind for _value, _done, used in found for kind in used if self._is_past(kind[0], values, common)}
        if not past:
            return found
        for kind in past:
            self._forget_kind(kind, self._kinds.pop(kind))
        return {(value, done, tuple(kind for kind in used if kind not in past)) for value, done, used in found}

    def _is_past(self, needs: int | None, values: set[int], common: int) -> bool:
        return needs is not None and needs not in values and self._supply(needs, common, ()) == 0

    def _without_common(self, found: set[Configuration]) -> set[Configuration]:
        """What all have used is used: nobody need remember it."""
        counts = [Counter(used) for _value, _done, used in found]
        common = counts[0]
        for count in counts:
            common &= count
        if not common:
            return found
        for kind, number in common.items():
            self._kinds[kind] -= number
            self._forget_kind(kind, number)
        return {(value, done, in_order((Counter(used) - common).elements())) for value, done, used in found}

    def _forget_kind(self, kind: Kind, number: int) -> None:
        """So many of an optional kind can't be used any more."""
        needs, gives = kind
        self._maybe[needs][gives] -= number
        self._maybe_gives[gives] -= number
        if needs is not None:
            self._maybe_needs[needs] -= number

    # -- letting things take effect --------------------------------------------------------------------------

    def _until(self, configurations: set[Configuration], step: Step, bit: int) -> set[Configuration]:
        """All ways to go on from these until the step has taken effect, and no further."""
        reached: set[Configuration] = set()
        seen = set(configurations)
        waiting = likeliest(configurations)
        for configuration in waiting:
            for after in self._next(configuration, step, bit):
                if after not in seen:
                    seen.add(after)
                    (reached.add if after[1] & bit else waiting.append)(after)
            if len(seen) > 4 * self._most:
                self._cut = True
                break
        return reached

    def _next(self, configuration: Configuration, target: Step, bit: int) -> Iterator[Configuration]:
        """What one more change of the value leads to."""
        value, done, used = configuration
        needed = self._needed(value, done)
        leave = not needed or self._supply(value, done, used) > 0
        for own, step in self._candidates(done):
            if step.needs is None:
                if (leave or step.gives == value) and self._is_worth_it(step, own, configuration, target, bit):
                    yield from self._after(configuration, step.needs, step.gives, own)
            elif step.needs == value and (leave or needed == 1):
                yield from self._after(configuration, step.needs, step.gives, own)
        for needs in (None, value):
            for gives, count in self._maybe.get(needs, NONE).items():
                kind = (needs, gives)
                wanted = not self._hide or target.avoids == value or self._is_wanted(gives, done)
                if wanted and count > used.count(kind) and (leave or gives == value):
                    yield from self._after((value, done, in_order((*used, kind))), needs, gives, 0)

    def _candidates(self, done: int) -> list[tuple[int, Step]]:
        """The writers under way that haven't taken effect; of those that do the same, the one that is answered first."""
        best: dict[tuple[int | None, int | None], tuple[int, Step]] = {}
        for bit, step in self._writers.items():
            if not done & bit:
                kind = (step.needs, step.gives)
                found = best.get(kind)
                if found is None or step.end < found[1].end:
                    best[kind] = (bit, step)
        return list(best.values())

    def _is_worth_it(self, step: Step, own: int, configuration: Configuration, target: Step, bit: int) -> bool:
        """Whether a plain write may lead to the target by way of what it writes."""
        if own == bit:
            return True
        gives = step.gives
        assert gives is not None
        _value, done, used = configuration
        if self._to_need[gives] and self._supply(gives, done | own, used) <= 0:  # it couldn't be left again
            return target.gives is None and (target.needs == gives or target.avoids not in (None, gives))
        hidden = self._complete(step, own, done, used)
        return not hidden or bool(hidden & bit)

    def _after(self, configuration: Configuration, needs: int | None, gives: int | None, own: int) -> Iterator[Configuration]:
        """The value has changed; what nobody needs any more took effect just before, and what reads the new value does."""
        _value, done, used = configuration
        assert gives is not None
        done |= own
        if needs is None and self._hide:
            hidden, kept = self._hidden(done, used)
            if kept:
                yield gives, self._read(gives, done | (hidden & ~kept)), used
            done |= hidden
        yield gives, self._read(gives, done), used

    def _hidden(self, done: int, used: tuple[Kind, ...]) -> tuple[int, int]:
        """Everything that can take effect unseen; and the write among it that could do so the latest, if refused compare-and-sets may want it."""
        hidden = kept = 0
        latest = -inf
        for bit, step in self._writers.items():
            if step.needs is None and not (done | hidden) & bit:
                found = self._complete(step, bit, done | hidden, used)
                hidden |= found
                if self._reserve and found and step.end > latest:
                    latest, kept = step.end, found
        for value, bits in self._avoids.items() if hidden & ~kept else ():
            if any(step.gives != value for bit, step in self._writers.items() if hidden & ~kept & bit):
                hidden |= bits
        return hidden, kept

    def _complete(self, step: Step, own: int, done: int, used: tuple[Kind, ...]) -> int:
        """The bits of a write with all that still needs it, if all of that is under way and leads nowhere else; else 0."""
        if not self._hide:
            return 0
        bits = own
        value = step.gives
        while True:
            assert value is not None
            if self._to_need[value] or self._maybe_needs[value]:
                return 0
            bits |= self._reads[value]
            follows = [(bit, step) for bit, step in self._follows.get(value, {}).items() if not (done | bits) & bit]
            if not follows:
                return bits & ~done
            if len(follows) > 1 or self._supply(value, done | bits, used) > 0:
                return 0
            bits |= follows[0][0]
            value = follows[0][1].gives

    def _read(self, value: int, done: int) -> int:
        done |= self._reads[value]
        for avoided, bits in self._avoids.items():
            if avoided != value:
                done |= bits
        return done

    # -- who still needs what --------------------------------------------------------------------------------

    def _needed(self, value: int, done: int) -> int:
        """How many that must happen still need a value."""
        count = self._to_need[value] + (self._reads[value] & ~done).bit_count()
        follows = self._follows.get(value)
        return count + sum(not done & bit for bit in follows) if follows else count

    def _supply(self, value: int, done: int, used: tuple[Kind, ...]) -> int:
        """How many can still write a value."""
        maybe = self._maybe_gives[value]
        if maybe and used:
            maybe -= sum(gives == value for _needs, gives in used)
        return self._to_give[value] + (self._given[value] & ~done).bit_count() + maybe

    def _is_wanted(self, value: int, done: int) -> bool:
        return self._needed(value, done) > 0 or value in self._maybe
