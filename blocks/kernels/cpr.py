"""Compact position reporting: positions in twice 17 bits, on two grids that take turns.

RTCA DO-260B, appendix A.1.7; the formulas also stand in ICAO Doc 9871 and in "The 1090 Megahertz
Riddle" (Sun, 2nd edition), chapter 5. Angles are in degrees. A position on the surface has a grid
four times as fine, and is told only up to multiples of 90 degrees.
"""

from __future__ import annotations

import math

from blocks.kernels.caching import njit

ZONES = 15  # of latitude, from the equator to a pole
STEPS = 1 << 17
EARTH_M = 6_371_008.8  # mean radius


@njit(cache=True, nogil=True)
def longitude_zones(latitude: float) -> int:
    """How many zones of longitude the even grid has there: NL, A.1.7.2."""
    latitude = abs(latitude)
    if latitude >= 87.0:
        return 2 if latitude == 87.0 else 1
    height = 1.0 - math.cos(math.pi / (2 * ZONES))
    angle = math.acos(1.0 - height / math.cos(math.radians(latitude)) ** 2)
    return min(int(2.0 * math.pi / angle), 59)  # 60 at the equator itself


@njit(cache=True, nogil=True)
def _span(surface: bool) -> float:
    return 90.0 if surface else 360.0


@njit(cache=True, nogil=True)
def encode(latitude: float, longitude: float, odd: int, surface: bool) -> tuple[int, int]:
    """The numbers that tell a position: A.1.7.3.

    odd      0: the even grid, 1: the odd one
    surface  the grid of positions on the surface
    """
    high = _span(surface) / (4 * ZONES - odd)
    y = math.floor(STEPS * (latitude % high) / high + 0.5)
    told = high * (y / STEPS + math.floor(latitude / high))
    wide = _span(surface) / max(longitude_zones(told) - odd, 1)
    x = math.floor(STEPS * (longitude % wide) / wide + 0.5)
    return y % STEPS, x % STEPS


@njit(cache=True, nogil=True)
def near(
    y: int, x: int, odd: int, surface: bool, latitude: float, longitude: float
) -> tuple[float, float]:
    """The position nearest to one that is known: A.1.7.5.

    Right where it lies within half a zone of it: 180 nautical miles, on the surface 45.
    Latitudes past a pole come out as they are.
    """
    high = _span(surface) / (4 * ZONES - odd)
    zone = math.floor(latitude / high) + math.floor(0.5 + latitude % high / high - y / STEPS)
    found = high * (zone + y / STEPS)
    wide = _span(surface) / max(longitude_zones(found) - odd, 1)
    zone = math.floor(longitude / wide) + math.floor(0.5 + longitude % wide / wide - x / STEPS)
    return found, wrapped(wide * (zone + x / STEPS))


@njit(cache=True, nogil=True)
def wrapped(longitude: float) -> float:
    """The same longitude in [-180, 180)."""
    return (longitude + 180.0) % 360.0 - 180.0


@njit(cache=True, nogil=True)
def pair(
    even_y: int, even_x: int, odd_y: int, odd_x: int, newest: int, surface: bool,
    near_latitude: float, near_longitude: float,
) -> tuple[float, float]:  # fmt: skip
    """The position told by one message of each grid: A.1.7.7, on the surface A.1.7.8.

    NaN where the latitudes lie in different zones of longitude, or past a pole. Right where the
    two positions are less than some 3 nautical miles apart, on the surface 0.75.

    newest          1: where the odd message puts it, 0: the even one
    near_latitude,  of all positions on the surface that fit, the nearest to this one is taken;
    near_longitude  elsewhere there is one only, and these are not used
    """
    span = _span(surface)
    zone = math.floor((59 * even_y - 60 * odd_y) / STEPS + 0.5)
    even = span / 60 * (zone % 60 + even_y / STEPS)
    odd = span / 59 * (zone % 59 + odd_y / STEPS)
    if surface:
        south = near_latitude < (odd if newest else even) - 45.0
        if south:
            even, odd = even - 90.0, odd - 90.0
    else:
        even, odd = wrapped(even), wrapped(odd)
    zones = longitude_zones(even)
    if abs(even) > 90.0 or abs(odd) > 90.0 or zones != longitude_zones(odd):
        return math.nan, math.nan
    latitude = odd if newest else even
    count = max(zones - newest, 1)
    zone = math.floor((even_x * (zones - 1) - odd_x * zones) / STEPS + 0.5)
    longitude = span / count * (zone % count + (odd_x if newest else even_x) / STEPS)
    if surface:
        longitude += 90.0 * math.floor((near_longitude - longitude) / 90.0 + 0.5)
    return latitude, wrapped(longitude)


@njit(cache=True, nogil=True)
def distance_m(latitude: float, longitude: float, to_latitude: float, to_longitude: float) -> float:
    """Length of the great circle on a sphere, by haversines [m]."""
    a, b = math.radians(latitude), math.radians(to_latitude)
    half = math.sin(math.radians(to_longitude - longitude) / 2.0)
    root = math.sin((b - a) / 2.0) ** 2 + math.cos(a) * math.cos(b) * half * half
    return 2.0 * EARTH_M * math.asin(min(1.0, math.sqrt(root)))
