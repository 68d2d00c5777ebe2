"""Rows of the CSV: what the real file holds, and that each nonsense row is refused by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.flights.corrupt import SPOILERS, corrupted
from examples.flights.rows import COLUMNS, Flight, NonsenseRow, airport_names, open_lines, parse_row, read_flights

HEADER = COLUMNS.encode() + b"\n"
ROW = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"


def january() -> tuple[list[Flight], list[tuple[int, str]]]:
    with open_lines() as lines:
        flights, refused = read_flights(lines, {1})
    return flights, [tuple(row) for row in refused]


def test_a_row_becomes_a_flight_with_its_departure_in_utc() -> None:
    flight = parse_row(ROW.split(","))
    assert flight == Flight("2013-01-01", "UA", 1545, "N14228", "EWR", "IAH", 22617255, 2, 11, 227, 1400)
    assert flight.key == "2013-01-01-UA-1545-EWR"


def test_january_is_read_whole_in_order_of_date_and_scheduled_time() -> None:
    flights, refused = january()
    assert refused == []
    assert len(flights) == 27_004
    assert len({flight.key for flight in flights}) == 27_004
    assert [(flight.day, flight.departs_min) for flight in flights] == sorted((flight.day, flight.departs_min) for flight in flights)


def test_rows_without_a_tail_number_are_cancelled_flights_of_the_unknown_aircraft() -> None:
    flights, _ = january()
    unknown = [flight for flight in flights if flight.tail == "unknown"]
    assert unknown
    assert all(flight.dep_delay is None for flight in unknown)


def test_months_that_are_not_asked_for_are_left_out() -> None:
    lines = [HEADER, *(f"2013,{month}{ROW[6:]}\n".encode() for month in (1, 10, 2))]
    flights, refused = read_flights(lines, {10})
    assert (flights, [row.line for row in refused]) == ([], [3]), "October's clock is an hour nearer to UTC: this row's time_hour is January's"
    assert len(read_flights(lines, {1})[0]) == 1


def test_four_destinations_have_no_name() -> None:
    flights, _ = january()
    nameless = {flight.dest for flight in flights} - set(airport_names())
    assert nameless == {"BQN", "PSE", "SJU", "STT"}


@pytest.mark.parametrize("kind", SPOILERS)
def test_each_kind_of_nonsense_is_refused_with_its_line_and_the_rest_goes_on(kind: str) -> None:
    def lines() -> Iterator[bytes]:
        yield HEADER
        yield ROW.encode() + b"\n"
        yield ",".join(SPOILERS[kind](ROW.split(","))).encode("utf-8", "surrogateescape") + b"\n"
        yield ROW.replace("1545", "1546").encode() + b"\n"

    flights, refused = read_flights(lines())
    assert [flight.number for flight in flights] == [1545, 1546]
    assert [row.line for row in refused] == [3]
    assert refused[0].reason
    assert len(refused[0].reason) < 200


@pytest.mark.parametrize("seed", [0, 7, 1234])
def test_nonsense_among_real_rows_changes_nothing_but_the_line_numbers(seed: int) -> None:
    clean, _ = january()
    with open_lines() as lines:
        flights, refused = read_flights(corrupted(lines, 40, seed, {1}), {1})
    assert flights == clean
    assert len(refused) == 40
    with open_lines() as lines:
        spoiled = list(corrupted(lines, 40, seed, {1}))
    with open_lines() as lines:
        inserted = Counter(spoiled) - Counter(lines)
    assert Counter(spoiled[row.line - 1] for row in refused) == inserted, "the line numbers are those of the inserted rows"


def test_the_same_seed_puts_the_same_nonsense_in() -> None:
    lines = [HEADER, *(ROW.replace("1545", str(number)).encode() + b"\n" for number in range(1, 50))]
    assert list(corrupted(lines, 9, 3)) == list(corrupted(lines, 9, 3))
    assert list(corrupted(lines, 9, 3)) != list(corrupted(lines, 9, 4))


def test_the_thirtieth_of_february_is_no_date() -> None:
    with pytest.raises(NonsenseRow, match="2013-2-30 is no date"):
        parse_row(ROW.replace("2013,1,1", "2013,2,30").split(","))


def test_a_file_with_another_header_is_refused_as_a_whole() -> None:
    with pytest.raises(NonsenseRow, match="header"):
        read_flights([b"year,month\n", ROW.encode()])
    with pytest.raises(NonsenseRow, match="header"):
        read_flights([])


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_no_bytes_stop_the_reader(garbage: list[bytes]) -> None:
    lines = [HEADER, *garbage, ROW.encode()]
    flights, refused = read_flights(lines)
    assert [flight.number for flight in flights] == [1545]
    assert [row.line for row in refused] == list(range(2, 2 + len(garbage)))


@given(st.integers(0, 18), st.text(max_size=30))
def test_a_cell_of_any_text_is_taken_or_refused(column: int, text: str) -> None:
    cells = ROW.split(",")
    cells[column] = text
    try:
        flight = parse_row(cells)
    except NonsenseRow:
        return
    assert flight.key
    assert 0 < flight.distance <= 12_000
