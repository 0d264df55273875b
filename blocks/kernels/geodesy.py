"""Short ways over the Earth: from a point to another in metres east and north, and back.

A point has a latitude and a longitude on the WGS 84 ellipsoid [deg]. Around it stands a plane that
touches the ellipsoid, lifted by a height; a point near by has the place in it that lies below or
above. Nothing is special at a pole or where the longitude jumps, and 15 km away a distance is too
short by 2 cm. Formulas: Hofmann-Wellenhof, Lichtenegger, Wasle, "GNSS", 2008, 8.2.1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]

RADIUS_M, FLATTENING = 6_378_137.0, 1.0 / 298.257223563  # WGS 84
SQUARED = FLATTENING * (2.0 - FLATTENING)  # of the eccentricity
Point = tuple[float, float, float]


@njit(cache=True, nogil=True)
def cartesian(latitude: float, longitude: float, height: float) -> Point:
    """Place in the frame that turns with the Earth [m]."""
    phi, lam = math.radians(latitude), math.radians(longitude)
    across = RADIUS_M / math.sqrt(1.0 - SQUARED * math.sin(phi) ** 2)
    out = (across + height) * math.cos(phi)
    return (
        out * math.cos(lam),
        out * math.sin(lam),
        (across * (1.0 - SQUARED) + height) * math.sin(phi),
    )


@njit(cache=True, nogil=True)
def _axes(latitude: float, longitude: float) -> tuple[Point, Point, Point]:
    """Unit vectors to the east, to the north and up."""
    phi, lam = math.radians(latitude), math.radians(longitude)
    s, c, sine, cosine = math.sin(phi), math.cos(phi), math.sin(lam), math.cos(lam)
    return (-sine, cosine, 0.0), (-s * cosine, -s * sine, c), (c * cosine, c * sine, s)


@njit(cache=True, nogil=True)
def _dot(a: Point, b: Point) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True)
def offset(
    latitude: float, longitude: float, to_latitude: float, to_longitude: float, height: float
) -> tuple[float, float]:
    """How far the second point lies east and north of the first, both at a height [m]."""
    a = cartesian(latitude, longitude, height)
    b = cartesian(to_latitude, to_longitude, height)
    way = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
    east, north, _ = _axes(latitude, longitude)
    return _dot(way, east), _dot(way, north)


@njit(cache=True, nogil=True)
def moved(
    latitude: float, longitude: float, height: float, east: float, north: float
) -> tuple[float, float, float]:
    """The point so far to the east and north of another, and how the axes turn on the way.

    The last number is the angle [rad] by which what was measured against east and north there is
    to be turned counterclockwise, to be measured against east and north here.
    """
    start = cartesian(latitude, longitude, height)
    e, n, u = _axes(latitude, longitude)
    drop = (east * east + north * north) / (2.0 * (RADIUS_M + height))
    x = start[0] + east * e[0] + north * n[0] - drop * u[0]
    y = start[1] + east * e[1] + north * n[1] - drop * u[1]
    z = start[2] + north * n[2] - drop * u[2]
    # Bowring's formula, whose error at heights of aircraft is far below a millimetre
    out, polar = math.hypot(x, y), RADIUS_M * (1.0 - FLATTENING)
    reduced = math.atan2(z * RADIUS_M, out * polar)
    found = math.degrees(
        math.atan2(
            z + SQUARED / (1.0 - SQUARED) * polar * math.sin(reduced) ** 3,
            out - SQUARED * RADIUS_M * math.cos(reduced) ** 3,
        )
    )
    to_longitude = math.degrees(math.atan2(y, x))
    to_e, to_n, _ = _axes(found, to_longitude)
    turn = math.atan2(_dot(to_n, e) - _dot(to_e, n), _dot(to_e, e) + _dot(to_n, n))
    return found, to_longitude, turn


@njit(cache=True, nogil=True)
def plane(latitudes: Array, longitudes: Array, places: Array) -> None:
    """Where points lie east and north of the first of them: azimuthal, equidistant.

    Ways from the first point keep their length and direction; others 400 km away are too long by
    0.07 % across. Up to a quarter of the way around the Earth.

    places  (n, 2), written [m]
    """
    for i in range(latitudes.size):
        east, north = offset(latitudes[0], longitudes[0], latitudes[i], longitudes[i], 0.0)
        chord = min(math.hypot(east, north) / RADIUS_M, 1.0)
        longer = math.asin(chord) / chord if chord > 0.0 else 1.0
        places[i, 0], places[i, 1] = longer * east, longer * north
