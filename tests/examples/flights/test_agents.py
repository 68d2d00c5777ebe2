"""The aircraft's own rules, by plain method calls: an agent class works without a platform."""

from __future__ import annotations

from examples.flights.agents import Aircraft
from examples.flights.rows import Flight


def flight(at_min: int, origin: str, dest: str, *, dep_delay: int | None = 0, air_time: int | None = 60) -> Flight:
    arr_delay = None if air_time is None or dep_delay is None else dep_delay
    return Flight("2013-01-01", "UA", at_min, "N1", origin, dest, at_min, dep_delay, arr_delay, air_time, 500)


async def test_an_aircraft_counts_what_it_flew_and_says_so() -> None:
    aircraft = Aircraft()
    assert await aircraft.fly(flight(100, "EWR", "IAH", dep_delay=5)) == 1
    book = await aircraft.book()
    assert (book["flights"], book["distance"], book["dep_delay"], book["air_time"]) == (1, 500, 5, 60)
    assert [event.type for event in aircraft.effects.events] == ["flights.flown"]


async def test_a_cancelled_flight_moves_nothing() -> None:
    aircraft = Aircraft()
    await aircraft.fly(flight(100, "EWR", "IAH", dep_delay=None, air_time=None))
    assert (aircraft.cancelled, aircraft.distance, aircraft.position) == (1, 0, "")
    assert [event.type for event in aircraft.effects.events] == ["flights.cancelled"]


async def test_a_departure_before_the_last_arrival_is_counted_not_refused() -> None:
    aircraft = Aircraft()
    await aircraft.fly(flight(100, "EWR", "IAH"))
    await aircraft.fly(flight(159, "EWR", "IAH"))
    assert (aircraft.flights, aircraft.implausible) == (2, 1)
    await aircraft.fly(flight(219, "EWR", "IAH"))
    assert aircraft.implausible == 1


async def test_a_departure_from_elsewhere_means_a_flight_that_nobody_saw() -> None:
    aircraft = Aircraft()
    await aircraft.fly(flight(100, "EWR", "IAH"))
    await aircraft.fly(flight(500, "JFK", "LGA"))
    await aircraft.fly(flight(900, "LGA", "IAH"))
    assert aircraft.unseen_returns == 1


async def test_a_flight_without_a_landing_on_record_went_astray() -> None:
    aircraft = Aircraft()
    await aircraft.fly(flight(100, "EWR", "IAH", air_time=None))
    assert (aircraft.astray, aircraft.air_time, aircraft.position) == (1, 0, "IAH")
    assert [event.type for event in aircraft.effects.events] == ["flights.astray"]
