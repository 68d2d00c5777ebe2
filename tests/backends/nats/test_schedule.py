"""Rows come due in time, however many are remembered."""

from hypothesis import given
from hypothesis import strategies as st

from jidosystem.backends.nats.schedule import Schedule


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 8), st.integers(1, 5))
def test_every_row_comes_due_however_few_are_remembered(times, most, limit):
    rows = {f"row {number}": (float(time_s), number) for number, time_s in enumerate(times)}
    schedule, position = Schedule(most), 0
    for now_s in range(52):
        while True:
            if schedule.is_incomplete(now_s):
                schedule.begin_anew()
            for subject, (expires_s, number) in rows.items():
                if number >= schedule.position:
                    schedule.add(expires_s, subject, number)
            schedule.position = position = max(position, len(times))
            due = schedule.due(now_s, limit)
            if not due:
                break
            assert all(expires_s <= now_s for expires_s, _subject, _number in due)
            for _expires_s, subject, _number in due:
                del rows[subject]
        assert [subject for subject, (expires_s, _number) in rows.items() if expires_s <= now_s] == []
    assert not rows


def test_no_more_are_remembered_than_may_be():
    schedule = Schedule(100)
    for number in range(10_000):
        schedule.add(number % 997, "row", number)
        assert len(schedule._soonest) <= 100
