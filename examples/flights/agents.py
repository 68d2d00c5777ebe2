"""The agents: aircraft that are told of each flight, airports and airlines that follow what the aircraft emit.

A flight is one call, `Aircraft.fly`, that takes effect once however often it is made, because the caller gives the flight's
key with it. Its turn commits the aircraft's totals and one event, `flights.flown`, `flights.astray` or `flights.cancelled`.
Airports and airlines learn of it by durable subscriptions, in the order of the log, some at a time.

Every state here is a few numbers: what happened is in the log, not in the agents.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from jidosystem import Agent, Event, action, on_event

from .rows import Flight

CLOSE_AFTER_S = 2.0
"""How long a day stays open at an airport after the first flight of the next one."""

BATCH = 200
"""The most events that an airport or an airline takes in one turn."""


class Aircraft(Agent):
    """One aircraft, by its tail number; `unknown` stands for all whose number nobody wrote down."""

    flights: int = 0
    cancelled: int = 0
    astray: int = 0
    distance: int = 0
    dep_delay: int = 0
    arr_delay: int = 0
    air_time: int = 0
    implausible: int = 0
    unseen_returns: int = 0
    position: str = ""
    arrived_min: int = 0

    @action
    async def fly(self, flight: Flight) -> int:
        """Take note of a flight; which one of this aircraft it is."""
        self.flights += 1
        if flight.dep_delay is None:
            self.cancelled += 1
            self.emit("flights.cancelled", flight)
            return self.flights
        departed_min = flight.departs_min + flight.dep_delay
        # Counted, not refused: the file has some hundred of these, and what is recorded has happened in some way.
        if departed_min < self.arrived_min:
            self.implausible += 1
        if self.position not in ("", flight.origin):
            self.unseen_returns += 1
        self.position = flight.dest
        self.distance += flight.distance
        self.dep_delay += flight.dep_delay
        if flight.air_time is None or flight.arr_delay is None:
            self.astray += 1
            self.emit("flights.astray", flight)
        else:
            self.arrived_min = departed_min + flight.air_time
            self.air_time += flight.air_time
            self.arr_delay += flight.arr_delay
            self.emit("flights.flown", flight)
        return self.flights

    @action(readonly=True)
    async def book(self) -> dict[str, int]:
        """The totals."""
        return {
            "flights": self.flights,
            "cancelled": self.cancelled,
            "astray": self.astray,
            "distance": self.distance,
            "dep_delay": self.dep_delay,
            "arr_delay": self.arr_delay,
            "air_time": self.air_time,
            "implausible": self.implausible,
            "unseen_returns": self.unseen_returns,
        }


def airports_of(event: Event) -> list[str]:
    """Whose event it is: where the flight began and, unless it was cancelled, where it was to end; at the end everybody's."""
    if event.type == "flights.ended":
        return list(event.data["airports"])
    if event.type == "flights.cancelled":
        return [event.data["origin"]]
    return [event.data["origin"], event.data["dest"]]


def airlines_of(event: Event) -> list[str]:
    """The carrier's; at the end everybody's."""
    if event.type == "flights.ended":
        return list(event.data["airlines"])
    return [event.data["carrier"]]


class Airport(Agent):
    """One airport, by its FAA code. Keeps the movements of each open day; closing a day folds it into the totals."""

    departures: int = 0
    arrivals: int = 0
    cancelled: int = 0
    astray: int = 0
    dep_delay: int = 0
    arr_delay: int = 0
    today: str = ""
    open_days: dict[str, int] = field(default_factory=dict)
    days_closed: int = 0
    movements_closed: int = 0
    busiest_day: int = 0
    late_movements: int = 0
    ended: bool = False

    @on_event("flights.*", key=airports_of, batch=BATCH)
    async def follow_flights(self, events: list[Event]) -> None:
        """Take note of what departed, arrived or didn't."""
        for event in events:
            if event.type == "flights.ended":
                self.ended = True
                self._close(self.today)
            else:
                self._movement(event.type, event.data)

    def _movement(self, kind: str, flight: dict[str, Any]) -> None:
        self._count(flight["day"])
        if flight["origin"] != self.key:
            if kind == "flights.flown":
                self.arrivals += 1
                self.arr_delay += flight["arr_delay"]
            else:
                self.astray += 1
        elif kind == "flights.cancelled":
            self.cancelled += 1
        else:
            self.departures += 1
            self.dep_delay += flight["dep_delay"]

    def _count(self, day: str) -> None:
        if day > self.today:
            if self.today in self.open_days:
                self.remind(f"close {self.today}", after=CLOSE_AFTER_S, action=self.close_day, args={"day": self.today})
            self.today = day
            self.open_days[day] = 1
        elif day in self.open_days:
            self.open_days[day] += 1
        else:
            # The loader begins a day when the day before is in the log, so this is never to happen; the books show if it does.
            self.late_movements += 1

    @action
    async def close_day(self, day: str) -> None:
        """Fold a day into the totals. A day that is closed already stays as it is."""
        self._close(day)

    def _close(self, day: str) -> None:
        movements = self.open_days.pop(day, 0)
        if movements:
            self.days_closed += 1
            self.movements_closed += movements
            self.busiest_day = max(self.busiest_day, movements)
        if self.ended and not self.open_days:
            self.emit("books.closed", self.key)

    @action(readonly=True)
    async def book(self) -> dict[str, int]:
        """The totals, and how many days are still open."""
        return {
            "departures": self.departures,
            "arrivals": self.arrivals,
            "cancelled": self.cancelled,
            "astray": self.astray,
            "dep_delay": self.dep_delay,
            "arr_delay": self.arr_delay,
            "days_closed": self.days_closed,
            "movements_closed": self.movements_closed,
            "busiest_day": self.busiest_day,
            "days_open": len(self.open_days),
            "late_movements": self.late_movements,
        }


class Airline(Agent):
    """One airline, by its two-letter code."""

    flights: int = 0
    cancelled: int = 0
    distance: int = 0
    dep_delay: int = 0
    arr_delay: int = 0

    @on_event("flights.*", key=airlines_of, batch=BATCH)
    async def follow_flights(self, events: list[Event]) -> None:
        """Take note of the airline's flights."""
        for event in events:
            if event.type == "flights.ended":
                self.emit("books.closed", self.key)
            else:
                self._flight(event.data)

    def _flight(self, flight: dict[str, Any]) -> None:
        self.flights += 1
        if flight["dep_delay"] is None:
            self.cancelled += 1
            return
        self.distance += flight["distance"]
        self.dep_delay += flight["dep_delay"]
        self.arr_delay += flight["arr_delay"] or 0

    @action(readonly=True)
    async def book(self) -> dict[str, int]:
        """The totals."""
        return {
            "flights": self.flights,
            "cancelled": self.cancelled,
            "distance": self.distance,
            "dep_delay": self.dep_delay,
            "arr_delay": self.arr_delay,
        }


AGENTS = (Aircraft, Airport, Airline)
