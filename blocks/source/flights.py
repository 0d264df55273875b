"""Aircraft that manoeuvre around a place: where they are at any time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from blocks.kernels import cpr

UNIFORMS = 8  # random numbers that a start or a leg takes
KNOT_M_S = 1852.0 / 3600.0
FOOT_M = 0.3048
GRAVITY = 9.81  # [m/s^2]
BANK = math.tan(math.radians(30.0))  # the steepest
LOWEST_FT, HIGHEST_FT = 2000.0, 41_000.0
SLOWEST_KT, FASTEST_KT = 160.0, 500.0


@dataclass(slots=True)
class Flight:
    """Where an aircraft is at a time, and the leg on which it goes on from there.

    On a leg it flies straight on, at a constant acceleration, or a circle at constant speed, and
    climbs at a constant rate.

    time       [s]           latitude, longitude  [deg]    altitude  [ft]
    speed      [kt]          track  clockwise from north [rad]
    climb      [ft/min]      turn  [rad/s]                 gain  of speed [kt/s]
    leg_end    [s]
    """

    time: float
    latitude: float
    longitude: float
    altitude: float
    speed: float
    track: float
    climb: float = 0.0
    turn: float = 0.0
    gain: float = 0.0
    leg_end: float = 0.0

    def at(self, time: float) -> Flight:
        """Where it is at a time on its leg."""
        after = time - self.time
        v, a, track = self.speed * KNOT_M_S, self.gain * KNOT_M_S, self.track
        if self.turn:
            track += self.turn * after
            radius = v / self.turn
            north = radius * (math.sin(track) - math.sin(self.track))
            east = radius * (math.cos(self.track) - math.cos(track))
        else:
            way = v * after + a * after * after / 2.0
            north, east = way * math.cos(track), way * math.sin(track)
        latitude = self.latitude + math.degrees(north / cpr.EARTH_M)
        across = cpr.EARTH_M * math.cos(math.radians(self.latitude + latitude) / 2.0)
        return Flight(
            time, latitude, float(cpr.wrapped(self.longitude + math.degrees(east / across))),
            self.altitude + self.climb * after / 60.0, self.speed + self.gain * after, track,
            self.climb, self.turn, self.gain, self.leg_end,
        )  # fmt: skip


#: Numbers of a flight, in their order.
NUMBERS = len(fields(Flight))


def bearing(latitude: float, longitude: float, to: tuple[float, float]) -> float:
    """Direction to a place that is not far, clockwise from north [rad]."""
    east = float(cpr.wrapped(to[1] - longitude)) * math.cos(math.radians(latitude))
    return math.atan2(east, to[0] - latitude)


def begin(home: tuple[float, float], range_m: float, u: Sequence[float]) -> Flight:
    """A flight that starts somewhere in a circle, in level flight, its first leg over at once."""
    away, angle = range_m * math.sqrt(u[0]), 2.0 * math.pi * u[1]
    latitude = home[0] + math.degrees(away * math.cos(angle) / cpr.EARTH_M)
    across = cpr.EARTH_M * math.cos(math.radians(home[0] + latitude) / 2.0)
    longitude = float(cpr.wrapped(home[1] + math.degrees(away * math.sin(angle) / across)))
    height = u[2]
    altitude = LOWEST_FT + height * (HIGHEST_FT - LOWEST_FT)
    low, high = SLOWEST_KT + 200.0 * height, 300.0 + 200.0 * height  # the thinner the air
    speed = low + u[3] * (high - low)
    return Flight(0.0, latitude, longitude, altitude, speed, 2.0 * math.pi * u[4])


def next_leg(
    flight: Flight, home: tuple[float, float], range_m: float, u: Sequence[float]
) -> Flight:
    """The flight at the end of its leg, with another one.

    Half of the legs are turns, at most as tight as BANK and 3 degrees per second allow; of the
    others half gain or lose speed. Out of range it turns back. A leg ends before height or speed
    leave their bounds.
    """
    now = flight.at(flight.leg_end)
    now.turn = now.gain = now.climb = 0.0
    if u[0] < 0.5:
        up = now.altitude < LOWEST_FT + u[0] * 2.0 * (HIGHEST_FT - LOWEST_FT)
        now.climb = (500.0 + 2000.0 * u[1]) * (1.0 if up else -1.0)
    sharpest = min(math.radians(3.0), GRAVITY * BANK / (now.speed * KNOT_M_S))
    rate = sharpest * (0.3 + 0.7 * u[2])
    lasts = 10.0 + 50.0 * u[3]
    away = cpr.distance_m(home[0], home[1], now.latitude, now.longitude)
    if away > range_m:
        wanted = bearing(now.latitude, now.longitude, home) + (u[4] - 0.5) * math.pi / 2.0
        change = math.remainder(wanted - now.track, 2.0 * math.pi)
        if abs(change) > math.radians(60.0):
            now.turn, lasts = math.copysign(rate, change), abs(change) / rate
    elif u[4] < 0.5:
        change = math.radians(20.0 + 130.0 * u[5])
        now.turn, lasts = rate if u[6] < 0.5 else -rate, change / rate
    elif u[5] < 0.5:
        faster = now.speed < SLOWEST_KT + u[6] * (FASTEST_KT - SLOWEST_KT)
        now.gain = (0.3 + 0.7 * u[7]) * (1.0 if faster else -1.0)
    for value, rate, low, high in (
        (now.altitude, now.climb / 60.0, LOWEST_FT, HIGHEST_FT),
        (now.speed, now.gain, SLOWEST_KT, FASTEST_KT),
    ):
        if rate:
            lasts = min(lasts, ((high if rate > 0.0 else low) - value) / rate)
    now.leg_end = now.time + max(lasts, 1.0)
    return now
