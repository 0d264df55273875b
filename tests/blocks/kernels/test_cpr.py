import math

import numpy as np
import pytest

from blocks.kernels import cpr


@pytest.mark.parametrize(
    ("latitude", "zones"),
    # limits of zones as printed in ICAO Doc 9871, table of NL
    [(0.0, 59), (10.47047, 59), (10.47048, 58), (-14.82817, 58), (-14.82818, 57), (52.2572, 36),
     (59.95459, 30), (59.95460, 29), (86.53536, 3), (86.53538, 2), (86.9999, 2), (87.0, 2),
     (87.0001, 1), (90.0, 1), (-90.0, 1)],
)  # fmt: skip
def test_zones_of_longitude_are_those_of_the_table(latitude, zones):
    assert cpr.longitude_zones(latitude) == zones


def test_positions_printed_in_the_1090_megahertz_riddle():
    # "The 1090 Megahertz Riddle", 5.2 and 5.3, the even message being the newest
    latitude, longitude = cpr.pair(93000, 51372, 74158, 50194, 0, False, 0.0, 0.0)
    assert (latitude, longitude) == pytest.approx((52.25720, 3.91937), abs=1e-5)
    latitude, longitude = cpr.near(93000, 51372, 0, False, 52.258, 3.918)
    assert (latitude, longitude) == pytest.approx((52.25720, 3.91937), abs=1e-5)


def places(count, seed, most=89.0):
    rng = np.random.default_rng(seed)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, count))).clip(-most, most)
    return zip(latitude.tolist(), rng.uniform(-180, 180, count).tolist(), strict=True)


def off_m(found, latitude, longitude):
    return cpr.distance_m(latitude, longitude, *found)


def rounding_m(latitude, surface):
    """Half a step of each grid, in latitude and longitude."""
    half = math.radians((90 if surface else 360) / (2 * cpr.STEPS)) * cpr.EARTH_M
    around = max(cpr.longitude_zones(latitude) - 1, 1)
    return 1.001 * math.hypot(half / 59, half / around * math.cos(math.radians(latitude)))


@pytest.mark.parametrize("surface", [False, True])
def test_positions_come_back_from_a_pair(surface):
    found = 0
    for latitude, longitude in places(2000, 5):
        even = cpr.encode(latitude, longitude, 0, surface)
        odd = cpr.encode(latitude, longitude, 1, surface)
        near = latitude + 3.0, longitude - 2.0
        for newest in (0, 1):
            place = cpr.pair(*even, *odd, newest, surface, *near)
            if not math.isnan(place[0]):  # a zone ends between the two roundings
                found += 1
                assert off_m(place, latitude, longitude) < rounding_m(latitude, surface)
    assert found > 3990


@pytest.mark.parametrize(("surface", "reach_m"), [(False, 330e3), (True, 82e3)])
def test_positions_come_back_near_another(surface, reach_m):
    rng = np.random.default_rng(6)
    for latitude, longitude in places(2000, 7, most=80.0):
        odd = int(rng.integers(2))
        told = cpr.encode(latitude, longitude, odd, surface)
        angle, far = rng.uniform(0, 2 * math.pi), math.degrees(0.7 * reach_m / cpr.EARTH_M)
        near_latitude = latitude + far * math.cos(angle)
        near_longitude = longitude + far * math.sin(angle) / math.cos(math.radians(latitude)) * 0.7
        place = cpr.near(*told, odd, surface, near_latitude, cpr.wrapped(near_longitude))
        assert off_m(place, latitude, longitude) < rounding_m(latitude, surface)


def test_a_pair_in_two_zones_of_longitude_tells_nothing():
    even = cpr.encode(10.46, 20.0, 0, False)
    odd = cpr.encode(10.48, 20.0, 1, False)
    assert math.isnan(cpr.pair(*even, *odd, 1, False, 0.0, 0.0)[0])


def test_a_pair_from_beyond_a_pole_tells_nothing():
    # 31 zones up: 186 degrees, on both grids
    assert math.isnan(cpr.pair(0, 0, int(cpr.STEPS * 31 * (1 - 59 / 60)), 0, 0, False, 0, 0)[0])


def test_great_circles_have_their_length():
    quarter = math.pi / 2 * cpr.EARTH_M
    assert cpr.distance_m(0.0, 0.0, 0.0, 90.0) == pytest.approx(quarter)
    assert cpr.distance_m(90.0, 17.0, 0.0, -99.0) == pytest.approx(quarter)
    assert cpr.distance_m(10.0, 179.9, 10.0, -179.9) == pytest.approx(
        math.radians(0.2) * cpr.EARTH_M * math.cos(math.radians(10.0)), rel=1e-6
    )
    assert cpr.distance_m(0.0, 0.0, 0.0, 180.0) == pytest.approx(2 * quarter)
