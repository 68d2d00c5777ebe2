"""The books reckoned from the CSV: facts of the file, and that a difference is found and named."""

from __future__ import annotations

from functools import cache

from examples.flights.books import Books, differences, reckon, sums


@cache
def february() -> Books:
    return reckon({2})


def test_the_sums_of_all_three_kinds_of_agent_agree_with_each_other() -> None:
    aircraft, airports, airlines = (sums(february(), kind) for kind in ("Aircraft", "Airport", "Airline"))
    assert aircraft["flights"] == airlines["flights"] == airports["departures"] + airports["cancelled"] == 24_951
    assert aircraft["distance"] == airlines["distance"]
    assert aircraft["dep_delay"] == airlines["dep_delay"] == airports["dep_delay"]
    assert aircraft["arr_delay"] == airlines["arr_delay"] == airports["arr_delay"]
    assert airports["arrivals"] + airports["astray"] == airports["departures"]
    assert airports["movements_closed"] == airports["departures"] * 2 + airports["cancelled"]


def test_a_busy_airport_has_something_to_close_every_day() -> None:
    assert february()["Airport/EWR"]["days_closed"] == 28


def test_equal_books_have_no_differences_whatever_zeros_they_spell_out() -> None:
    found = {agent: {**book, "days_open": 0} for agent, book in february().items()}
    assert differences(february(), found) == []


def test_one_wrong_total_of_one_agent_is_named() -> None:
    found = {agent: dict(book) for agent, book in february().items()}
    found["Airline/UA"]["flights"] += 1
    (sentence,) = differences(february(), found)
    assert sentence.startswith("Airline/UA: flights is ")


def test_a_missing_agent_and_one_too_many_are_named() -> None:
    found = {agent: dict(book) for agent, book in february().items()}
    del found["Aircraft/N14228"]
    found["Aircraft/N0000"] = {"flights": 0}
    sentences = differences(february(), found)
    assert any(sentence.startswith("Aircraft/N14228: ") for sentence in sentences)
    assert "Aircraft/N0000: an agent that the file doesn't know" in sentences


def test_a_total_below_zero_is_a_total() -> None:
    assert any(book.get("arr_delay", 0) < 0 for book in february().values())
