"""What is seen of a state: each observation stands here once, with its Jacobian.

    y[i] = h(x[i]) + v[i],  v ~ N(0, R)

An observation is two functions on arrays, of these forms:

    observe(state, parameters, out)              out = h(state)
    linearise(state, parameters, out, jacobian)  and jacobian = dh/dstate, (m, n)

A user adds one as one adds a motion (kernels/motions.py), by putting it into OBSERVATIONS.
`parameters` are its own in the order of the table, or what its `prepare` makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blocks.kernels.motions import plane_rotation

Array = np.ndarray[Any, Any]
Sequence = tuple[float, ...]


@dataclass(frozen=True)
class Observation:
    """What is seen of a state.

    rows        (length of the state, dimensions) -> length of an observation
    observe, linearise   see the top of this file
    parameters  its own, with their defaults
    needs       length that the state must have at least
    angles      rows that are angles, whose residuals are wrapped
    linear      whether it is H x with the same H for every state
    prepare     (length of the state, dimensions, own parameters) -> what the functions get
    """

    doc: str
    rows: Callable[[int, int], int]
    observe: Callable[..., None]
    linearise: Callable[..., None]
    parameters: Mapping[str, float] = field(default_factory=dict)
    needs: int = 1
    angles: tuple[int, ...] = ()
    linear: bool = False
    prepare: Callable[[int, int, Mapping[str, float]], Sequence] | None = None


def space_rotation(size: int, degrees: float) -> Array:
    """Rotation by the same angle about each axis: Rz Ry Rx in three dimensions."""
    if degrees == 0.0:
        return np.eye(size)
    if size == 2:
        return plane_rotation(2, degrees)
    if size != 3:
        raise ValueError(f"rotation_deg = {degrees:g} needs 2 or 3 rows, but there are {size}")
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rx = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    ry = np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    rz = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    rotation: Array = rz @ ry @ rx
    return rotation


def reverse_canonical_matrix(size: int) -> Array:
    """Ones in the first row and on the other diagonal."""
    matrix: Array = np.fliplr(np.eye(size)).copy()
    matrix[0] = 1.0
    return matrix


def matrix_observe(state: Array, parameters: Array, out: Array) -> None:
    """H x, with H in the parameters."""
    n = state.size
    for i in range(out.size):
        total = 0.0
        for k in range(n):
            total += parameters[i * n + k] * state[k]
        out[i] = total


def matrix_observe_linearised(state: Array, parameters: Array, out: Array, jacobian: Array) -> None:
    """H x, and H."""
    n = state.size
    for i in range(out.size):
        total = 0.0
        for k in range(n):
            jacobian[i, k] = parameters[i * n + k]
            total += jacobian[i, k] * state[k]
        out[i] = total


def _identity_rows(n: int, dimensions: int, own: Mapping[str, float]) -> Sequence:
    return tuple(space_rotation(n, own["rotation_deg"]).ravel())


def _position_rows(n: int, dimensions: int, own: Mapping[str, float]) -> Sequence:
    rows = np.eye(dimensions, n)
    return tuple((space_rotation(dimensions, own["rotation_deg"]) @ rows).ravel())


def _velocity_rows(n: int, dimensions: int, own: Mapping[str, float]) -> Sequence:
    return tuple(np.eye(dimensions, n, dimensions).ravel())


def range_bearing_observe(state: Array, parameters: Array, out: Array) -> None:
    """Distance and bearing from a sensor in the plane of the first two axes."""
    x, y = state[0] - parameters[0], state[1] - parameters[1]
    out[0] = np.hypot(x, y)
    out[1] = np.arctan2(y, x)


def range_bearing_linearised(state: Array, parameters: Array, out: Array, jacobian: Array) -> None:
    """Distance and bearing, with their Jacobian."""
    x, y = state[0] - parameters[0], state[1] - parameters[1]
    r = max(np.hypot(x, y), 1e-12)  # at the sensor itself the bearing has no derivative
    out[0] = np.hypot(x, y)
    out[1] = np.arctan2(y, x)
    jacobian[:, :] = 0.0
    jacobian[0, 0], jacobian[0, 1] = x / r, y / r
    jacobian[1, 0], jacobian[1, 1] = -y / r**2, x / r**2


def bearing_observe(state: Array, parameters: Array, out: Array) -> None:
    """Bearings from two sensors in the plane of the first two axes."""
    for k in range(2):
        x, y = state[0] - parameters[2 * k], state[1] - parameters[2 * k + 1]
        out[k] = np.arctan2(y, x)


def bearing_linearised(state: Array, parameters: Array, out: Array, jacobian: Array) -> None:
    """Bearings from two sensors, with their Jacobian."""
    jacobian[:, :] = 0.0
    for k in range(2):
        x, y = state[0] - parameters[2 * k], state[1] - parameters[2 * k + 1]
        square = max(x * x + y * y, 1e-24)
        out[k] = np.arctan2(y, x)
        jacobian[k, 0], jacobian[k, 1] = -y / square, x / square


def angle_observe(state: Array, parameters: Array, out: Array) -> None:
    """The first number, an angle."""
    out[0] = state[0]


def angle_linearised(state: Array, parameters: Array, out: Array, jacobian: Array) -> None:
    """The first number, an angle, with its Jacobian."""
    out[0] = state[0]
    jacobian[:, :] = 0.0
    jacobian[0, 0] = 1.0


def spherical_observe(state: Array, parameters: Array, out: Array) -> None:
    """Distance, angle from the third axis, and azimuth of the first three numbers."""
    x, y, z = state[0], state[1], state[2]
    plane = np.hypot(x, y)
    out[0] = np.hypot(plane, z)
    out[1] = np.arctan2(plane, z)
    out[2] = np.arctan2(y, x)


def spherical_linearised(state: Array, parameters: Array, out: Array, jacobian: Array) -> None:
    """Distance, angle from the third axis and azimuth, with their Jacobian."""
    x, y, z = state[0], state[1], state[2]
    plane = max(np.hypot(x, y), 1e-12)
    r = max(np.hypot(plane, z), 1e-12)
    out[0] = np.hypot(np.hypot(x, y), z)
    out[1] = np.arctan2(np.hypot(x, y), z)
    out[2] = np.arctan2(y, x)
    jacobian[:, :] = 0.0
    jacobian[0, 0], jacobian[0, 1], jacobian[0, 2] = x / r, y / r, z / r
    jacobian[1, 0] = x * z / (r * r * plane)
    jacobian[1, 1] = y * z / (r * r * plane)
    jacobian[1, 2] = -plane / (r * r)
    jacobian[2, 0], jacobian[2, 1] = -y / plane**2, x / plane**2


def quadratic_observe(state: Array, parameters: Array, out: Array) -> None:
    """Parabola a (b x + c)^2, number by number."""
    for i in range(state.size):
        out[i] = parameters[0] * (parameters[1] * state[i] + parameters[2]) ** 2


def quadratic_linearised(state: Array, parameters: Array, out: Array, jacobian: Array) -> None:
    """Parabola a (b x + c)^2, with its Jacobian."""
    jacobian[:, :] = 0.0
    for i in range(state.size):
        inner = parameters[1] * state[i] + parameters[2]
        out[i] = parameters[0] * inner**2
        jacobian[i, i] = 2.0 * parameters[0] * parameters[1] * inner


OBSERVATIONS: dict[str, Observation] = {
    "identity": Observation(
        doc="the whole state, turned by rotation_deg (in 3 rows about each axis)",
        rows=lambda n, dimensions: n,
        observe=matrix_observe, linearise=matrix_observe_linearised,
        parameters={"rotation_deg": 0.0}, linear=True, prepare=_identity_rows,
    ),
    "position": Observation(
        doc="as many first numbers as there are dimensions, turned by rotation_deg",
        rows=lambda n, dimensions: min(dimensions, n),
        observe=matrix_observe, linearise=matrix_observe_linearised,
        parameters={"rotation_deg": 0.0}, linear=True, prepare=_position_rows,
    ),
    "velocity": Observation(
        doc="the velocities of a state that holds positions first",
        rows=lambda n, dimensions: dimensions,
        observe=matrix_observe, linearise=matrix_observe_linearised,
        needs=2, linear=True, prepare=_velocity_rows,
    ),
    "canonical": Observation(
        doc="the papers' linear observation: ones in the first row and on the other diagonal",
        rows=lambda n, dimensions: n,
        observe=matrix_observe, linearise=matrix_observe_linearised, linear=True,
        prepare=lambda n, dimensions, own: tuple(reverse_canonical_matrix(n).ravel()),
    ),
    "angle": Observation(
        doc="the first number, an angle [rad]: compared around the circle",
        rows=lambda n, dimensions: 1,
        observe=angle_observe, linearise=angle_linearised, angles=(0,),
    ),
    "range_bearing": Observation(
        doc="distance [m] and bearing [rad] in the plane, from a sensor at sensor_x, sensor_y",
        rows=lambda n, dimensions: 2,
        observe=range_bearing_observe, linearise=range_bearing_linearised,
        parameters={"sensor_x": 0.0, "sensor_y": 0.0}, needs=2, angles=(1,),
    ),
    "bearings": Observation(
        doc="bearings [rad] in the plane from two sensors",
        rows=lambda n, dimensions: 2,
        observe=bearing_observe, linearise=bearing_linearised,
        parameters={"first_x": -1000.0, "first_y": 0.0, "second_x": 1000.0, "second_y": 0.0},
        needs=2, angles=(0, 1),
    ),
    "spherical": Observation(
        doc="distance, angle from the third axis and azimuth [rad] of the first three numbers",
        rows=lambda n, dimensions: 3,
        observe=spherical_observe, linearise=spherical_linearised, needs=3, angles=(1, 2),
    ),
    "quadratic": Observation(
        doc="a (b x + c)^2, number by number",
        rows=lambda n, dimensions: n,
        observe=quadratic_observe, linearise=quadratic_linearised,
        parameters={"a": 1.0, "b": 1.0, "c": 0.0},
    ),
}  # fmt: skip
