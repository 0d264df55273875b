import math

import numpy as np
import pytest

from blocks.kernels import geodesy

A, B = 6378137.0, 6356752.314245  # axes of WGS 84, as published


def test_cartesian_places_are_those_of_the_axes():
    assert geodesy.cartesian(0.0, 0.0, 0.0) == pytest.approx((A, 0.0, 0.0), abs=1e-6)
    assert geodesy.cartesian(0.0, -90.0, 100.0) == pytest.approx((0.0, -A - 100.0, 0.0), abs=1e-6)
    assert geodesy.cartesian(90.0, 12.0, 0.0) == pytest.approx((0.0, 0.0, B), abs=1e-4)


@pytest.mark.parametrize("latitude", [-75.0, 0.0, 45.0, 89.0])
def test_offsets_have_the_radii_of_curvature(latitude):
    # M = a (1 - e^2) / W^3 along the meridian, N = a / W across it, W^2 = 1 - e^2 sin^2
    squared = 1.0 - (B / A) ** 2
    w = math.sqrt(1.0 - squared * math.sin(math.radians(latitude)) ** 2)
    step = math.degrees(1e-5)
    north = geodesy.offset(latitude, 7.0, latitude + step, 7.0, 1e4)
    east = geodesy.offset(latitude, 7.0, latitude, 7.0 + step, 1e4)
    assert north[0] == pytest.approx(0.0, abs=1e-6)
    assert north[1] == pytest.approx(1e-5 * (A * (1.0 - squared) / w**3 + 1e4), rel=1e-5)
    assert east[0] == pytest.approx(
        1e-5 * (A / w + 1e4) * math.cos(math.radians(latitude)), rel=1e-5
    )


@pytest.mark.parametrize(
    "place",
    [(0.0, 0.0), (50.0, 8.0), (-33.0, 179.999), (10.0, -180.0), (89.97, 40.0), (-90.0, 0.0)],
)
def test_a_way_leads_back(place):
    rng = np.random.default_rng(1)
    for east, north in rng.uniform(-8e3, 8e3, (20, 2)):
        latitude, longitude, _ = geodesy.moved(*place, 9000.0, east, north)
        assert -180.0 <= longitude <= 180.0
        found = geodesy.offset(*place, latitude, longitude, 9000.0)
        assert found == pytest.approx((east, north), abs=0.02)


def test_axes_turn_by_the_convergence_of_meridians():
    latitude, longitude, angle = geodesy.moved(60.0, 179.99, 0.0, 5000.0, 0.0)
    away = math.radians((longitude - 179.99) % 360.0)
    convergence = away * math.sin(math.radians(0.5 * (60.0 + latitude)))
    assert angle == pytest.approx(-convergence, rel=1e-3)  # what went east goes a little south
    assert geodesy.moved(0.0, 20.0, 0.0, 5000.0, 0.0)[2] == pytest.approx(0.0, abs=1e-12)


def test_beyond_the_pole_north_is_south():
    latitude, longitude, angle = geodesy.moved(89.99, 30.0, 0.0, 0.0, 3000.0)
    assert latitude < 89.99
    assert longitude == pytest.approx(-150.0, abs=1e-6)
    assert abs(angle) == pytest.approx(math.pi, abs=1e-9)


def test_a_plane_keeps_the_ways_from_its_first_point():
    # on the equator the ellipsoid is a circle, and ways along it are arcs
    longitudes = np.array([179.0, -179.0, 179.0, 174.0])
    latitudes, places = np.array([0.0, 0.0, 1e-5, 0.0]), np.empty((4, 2))
    geodesy.plane(latitudes, longitudes, places)
    assert not places[0].any()
    np.testing.assert_allclose(places[[1, 3], 0], [math.radians(2) * A, math.radians(-5) * A])
    np.testing.assert_allclose(places[[1, 3], 1], 0.0, atol=1e-6)
    assert places[2, 1] == pytest.approx(math.radians(1e-5) * B * B / A, rel=1e-6)
