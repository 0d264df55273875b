"""State-space models: how a state moves, and what is seen of it. Each model stands here once.

    x[i] = f(x[i-1], dt) + w[i],  w ~ N(0, Q(dt));    y[i] = h(x[i]) + v[i],  v ~ N(0, R)

A model is a few functions on arrays, of these forms (`parameters` is what the model says it is):

    advance(state, interval, parameters, out)              out = f(state, interval)
    linearise(state, interval, parameters, out, jacobian)  and jacobian = df/dstate, (n, n)
    noise(interval, parameters, out)                       out = Q(interval), (n, n)
    observe(state, parameters, out)                        out = h(state)
    linearise(state, parameters, out, jacobian)            and jacobian = dh/dstate, (m, n)

They write every entry of what they are to write. Filters, smoothers and sources take them as
functions of one compiled signature, so a new model needs no new kernel: write them in Python,
without decoration, in words that numba compiles, and put them into MOTIONS or OBSERVATIONS:

    MOTIONS["decay"] = Motion(
        doc="exponential decay towards 0", size=lambda dimensions: dimensions,
        advance=advance, linearise=linearise, noise=noise, parameters={"rate": 0.1},
    )

`parameters` of a motion are process_noise and step_s, then its own in the order of the table;
those of an observation are its own, or what its `prepare` makes of them.

Positions come first in a state, all axes, then velocities, then accelerations. Lengths are in m,
angles in rad, times in s, where the model is of something that moves.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blocks.kernels import matrices, small
from blocks.kernels.caching import njit
from blocks.kernels.indirect import (
    address_of,
    call_advance,
    call_linearise,
    call_noise,
    call_observe,
    call_observe_linearised,
)
from blocks.kernels.unrolled import unrolled

Array = np.ndarray[Any, Any]
Sequence = tuple[float, ...]
Rows = tuple[tuple[float, ...], ...]

TWO_PI = 2.0 * math.pi


@dataclass(frozen=True)
class Motion:
    """How a state moves.

    size        dimensions -> length of the state
    advance, linearise, noise   see the top of this file
    parameters  its own, with their defaults
    dimensions  least and most that it can have
    initial     where a state starts unless told, one number or all of them
    linear      whether it is F x with the same F for every state
    prepare     (dimensions, own parameters) -> what the functions get in their place
    """

    doc: str
    size: Callable[[int], int]
    advance: Callable[..., None]
    linearise: Callable[..., None]
    noise: Callable[..., None]
    parameters: Mapping[str, float] = field(default_factory=dict)
    dimensions: tuple[int, int] = (1, 64)
    initial: tuple[float, ...] = (0.0,)
    linear: bool = False
    prepare: Callable[[int, Mapping[str, float]], Sequence] | None = None


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


@njit(cache=True, nogil=True)
def wrapped(angle: float) -> float:
    """The same angle in -pi ... pi."""
    return float(angle - TWO_PI * np.round(angle / TWO_PI))


# --- Motion in space ------------------------------------------------------------------------------


def velocity_advance(state: Array, interval: float, parameters: Array, out: Array) -> None:
    """Constant velocity: (p, v)."""
    d = state.size // 2
    for i in range(d):
        out[i] = state[i] + interval * state[d + i]
        out[d + i] = state[d + i]


def velocity_linearise(
    state: Array, interval: float, parameters: Array, out: Array, jacobian: Array
) -> None:
    """Constant velocity, with its matrix."""
    d = state.size // 2
    jacobian[:, :] = 0.0
    for i in range(d):
        out[i] = state[i] + interval * state[d + i]
        out[d + i] = state[d + i]
        jacobian[i, i] = 1.0
        jacobian[i, d + i] = interval
        jacobian[d + i, d + i] = 1.0


def velocity_noise(interval: float, parameters: Array, out: Array) -> None:
    """White acceleration of spectral density process_noise [m^2/s^3] on each axis."""
    q, d = parameters[0], out.shape[0] // 2
    out[:, :] = 0.0
    for i in range(d):
        out[i, i] = q * interval**3 / 3.0
        out[i, d + i] = q * interval**2 / 2.0
        out[d + i, i] = q * interval**2 / 2.0
        out[d + i, d + i] = q * interval


def acceleration_advance(state: Array, interval: float, parameters: Array, out: Array) -> None:
    """Constant acceleration: (p, v, a)."""
    d = state.size // 3
    for i in range(d):
        v, a = state[d + i], state[2 * d + i]
        out[i] = state[i] + interval * (v + 0.5 * interval * a)
        out[d + i] = v + interval * a
        out[2 * d + i] = a


def acceleration_linearise(
    state: Array, interval: float, parameters: Array, out: Array, jacobian: Array
) -> None:
    """Constant acceleration, with its matrix."""
    d = state.size // 3
    jacobian[:, :] = 0.0
    for i in range(d):
        v, a = state[d + i], state[2 * d + i]
        out[i] = state[i] + interval * (v + 0.5 * interval * a)
        out[d + i] = v + interval * a
        out[2 * d + i] = a
        for k in range(3):
            jacobian[k * d + i, k * d + i] = 1.0
        jacobian[i, d + i] = interval
        jacobian[d + i, 2 * d + i] = interval
        jacobian[i, 2 * d + i] = 0.5 * interval**2


def acceleration_noise(interval: float, parameters: Array, out: Array) -> None:
    """White jerk of spectral density process_noise [m^2/s^5] on each axis."""
    q, d = parameters[0], out.shape[0] // 3
    out[:, :] = 0.0
    for i in range(d):
        out[i, i] = q * interval**5 / 20.0
        out[d + i, d + i] = q * interval**3 / 3.0
        out[2 * d + i, 2 * d + i] = q * interval
        out[i, d + i] = out[d + i, i] = q * interval**4 / 8.0
        out[i, 2 * d + i] = out[2 * d + i, i] = q * interval**3 / 6.0
        out[d + i, 2 * d + i] = out[2 * d + i, d + i] = q * interval**2 / 2.0


@njit(cache=True, nogil=True)
def _turn(rate: float, interval: float) -> tuple[float, float, float, float]:
    """S = sin(wT)/w and C = (1 - cos(wT))/w, and their derivatives by w; smooth through w = 0."""
    angle = rate * interval
    if abs(angle) < 1e-4:  # series: the closed forms cancel
        square = angle * angle
        return (
            interval * (1.0 - square / 6.0),
            interval * angle * (0.5 - square / 24.0),
            interval**2 * angle * (-1.0 / 3.0 + square / 30.0),
            interval**2 * (0.5 - square / 8.0),
        )
    sine, cosine = np.sin(angle), np.cos(angle)
    versine = 2.0 * np.sin(0.5 * angle) ** 2
    return (
        sine / rate,
        versine / rate,
        (angle * cosine - sine) / rate**2,
        (angle * sine - versine) / rate**2,
    )


def turn_advance(state: Array, interval: float, parameters: Array, out: Array) -> None:
    """Coordinated turn: (p, v, turn rate); a third axis keeps its velocity."""
    d = (state.size - 1) // 2
    vx, vy, rate = state[d], state[d + 1], state[2 * d]
    sine, versine, _, _ = _turn(rate, interval)
    out[0] = state[0] + sine * vx - versine * vy
    out[1] = state[1] + versine * vx + sine * vy
    cosine, sine = np.cos(rate * interval), np.sin(rate * interval)
    out[d] = cosine * vx - sine * vy
    out[d + 1] = sine * vx + cosine * vy
    if d == 3:
        out[2] = state[2] + interval * state[5]
        out[5] = state[5]
    out[2 * d] = rate


def turn_linearise(
    state: Array, interval: float, parameters: Array, out: Array, jacobian: Array
) -> None:
    """Coordinated turn, with its Jacobian."""
    d = (state.size - 1) // 2
    vx, vy, rate = state[d], state[d + 1], state[2 * d]
    s, c, ds, dc = _turn(rate, interval)
    cosine, sine = np.cos(rate * interval), np.sin(rate * interval)
    out[0] = state[0] + s * vx - c * vy
    out[1] = state[1] + c * vx + s * vy
    out[d] = cosine * vx - sine * vy
    out[d + 1] = sine * vx + cosine * vy
    out[2 * d] = rate
    jacobian[:, :] = 0.0
    for i in range(state.size):
        jacobian[i, i] = 1.0
    jacobian[0, d], jacobian[0, d + 1] = s, -c
    jacobian[1, d], jacobian[1, d + 1] = c, s
    jacobian[d, d], jacobian[d, d + 1] = cosine, -sine
    jacobian[d + 1, d], jacobian[d + 1, d + 1] = sine, cosine
    jacobian[0, 2 * d] = ds * vx - dc * vy
    jacobian[1, 2 * d] = dc * vx + ds * vy
    jacobian[d, 2 * d] = -interval * out[d + 1]
    jacobian[d + 1, 2 * d] = interval * out[d]
    if d == 3:
        out[2] = state[2] + interval * state[5]
        out[5] = state[5]
        jacobian[2, 5] = interval


def turn_noise(interval: float, parameters: Array, out: Array) -> None:
    """White acceleration as for constant velocity, and a turn rate that walks by turn_noise."""
    q, d = parameters[0], (out.shape[0] - 1) // 2
    out[:, :] = 0.0
    for i in range(d):
        out[i, i] = q * interval**3 / 3.0
        out[i, d + i] = q * interval**2 / 2.0
        out[d + i, i] = q * interval**2 / 2.0
        out[d + i, d + i] = q * interval
    out[2 * d, 2 * d] = parameters[2] * interval


# --- A constant matrix, whatever the interval -----------------------------------------------------


def matrix_advance(state: Array, interval: float, parameters: Array, out: Array) -> None:
    """F x, with F in the parameters."""
    n = state.size
    for i in range(n):
        total = 0.0
        for k in range(n):
            total += parameters[2 + i * n + k] * state[k]
        out[i] = total


def matrix_linearise(
    state: Array, interval: float, parameters: Array, out: Array, jacobian: Array
) -> None:
    """F x, and F."""
    n = state.size
    for i in range(n):
        total = 0.0
        for k in range(n):
            jacobian[i, k] = parameters[2 + i * n + k]
            total += jacobian[i, k] * state[k]
        out[i] = total


def step_noise(interval: float, parameters: Array, out: Array) -> None:
    """Independent noise of variance process_noise per step_s on each number of the state."""
    variance = parameters[0] * (interval / parameters[1])
    out[:, :] = 0.0
    for i in range(out.shape[0]):
        out[i, i] = variance


def given_noise(interval: float, parameters: Array, out: Array) -> None:
    """The covariance per step_s that stands at the end of the parameters."""
    n = out.shape[0]
    first = parameters.size - n * n
    scale = interval / parameters[1]
    for i in range(n):
        for k in range(n):
            out[i, k] = scale * parameters[first + i * n + k]


def plane_rotation(size: int, degrees: float) -> Array:
    """Rotation of the first two axes of a space."""
    angle = math.radians(degrees)
    rotation: Array = np.eye(size)
    rotation[:2, :2] = [
        [math.cos(angle), -math.sin(angle)],
        [math.sin(angle), math.cos(angle)],
    ]
    return rotation


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


def canonical_matrix(size: int) -> Array:
    """The identity with ones in its first row."""
    matrix: Array = np.eye(size)
    matrix[0] = 1.0
    return matrix


def reverse_canonical_matrix(size: int) -> Array:
    """Ones in the first row and on the other diagonal."""
    matrix: Array = np.fliplr(np.eye(size)).copy()
    matrix[0] = 1.0
    return matrix


def _canonical(dimensions: int, own: Mapping[str, float]) -> Sequence:
    degrees = own["rotation_deg"]
    if degrees and dimensions < 2:
        raise ValueError(f"rotation_deg = {degrees:g} needs 2 dimensions, but there is 1")
    turned = plane_rotation(dimensions, degrees) if degrees else np.eye(dimensions)
    return tuple((turned @ canonical_matrix(dimensions)).ravel())


# --- Scalar and chaotic systems -------------------------------------------------------------------


def sinusoid_advance(state: Array, interval: float, parameters: Array, out: Array) -> None:
    """Sinusoid a sin(b x + phi) + delta, number by number."""
    a, b, phi, delta = parameters[2], parameters[3], parameters[4], parameters[5]
    for i in range(state.size):
        out[i] = a * np.sin(b * state[i] + phi) + delta


def sinusoid_linearise(
    state: Array, interval: float, parameters: Array, out: Array, jacobian: Array
) -> None:
    """Sinusoid a sin(b x + phi) + delta, with its Jacobian."""
    a, b, phi, delta = parameters[2], parameters[3], parameters[4], parameters[5]
    jacobian[:, :] = 0.0
    for i in range(state.size):
        out[i] = a * np.sin(b * state[i] + phi) + delta
        jacobian[i, i] = a * b * np.cos(b * state[i] + phi)


def pendulum_advance(state: Array, interval: float, parameters: Array, out: Array) -> None:
    """Angle and angular velocity under the acceleration at the start of the interval."""
    acceleration = -parameters[2] / parameters[3] * np.sin(state[0])
    out[0] = state[0] + interval * (state[1] + 0.5 * interval * acceleration)
    out[1] = state[1] + interval * acceleration


def pendulum_linearise(
    state: Array, interval: float, parameters: Array, out: Array, jacobian: Array
) -> None:
    """The pendulum, with its Jacobian."""
    acceleration = -parameters[2] / parameters[3] * np.sin(state[0])
    slope = -parameters[2] / parameters[3] * np.cos(state[0])
    out[0] = state[0] + interval * (state[1] + 0.5 * interval * acceleration)
    out[1] = state[1] + interval * acceleration
    jacobian[0, 0] = 1.0 + 0.5 * interval**2 * slope
    jacobian[0, 1] = interval
    jacobian[1, 0] = interval * slope
    jacobian[1, 1] = 1.0


def _lorenz_rate(x: Any, sigma: Any, rho: Any, beta: Any) -> Any:
    """dx/dt."""
    return sigma * (x[1] - x[0]), x[0] * (rho - x[2]) - x[1], x[0] * x[1] - beta * x[2]


def _lorenz_slope(x: Any, sigma: Any, rho: Any, beta: Any) -> Any:
    """The Jacobian of dx/dt."""
    return (-sigma, sigma, 0.0), (rho - x[2], -1.0, -x[0]), (x[1], x[0], -beta)


def _along(x: Any, step: Any, slope: Any) -> Any:
    return tuple(a + step * b for a, b in zip(x, slope, strict=True))


@unrolled
def _lorenz_rk4(x: Any, h: Any, sigma: Any, rho: Any, beta: Any) -> Any:
    """One Runge-Kutta step of order 4."""
    k1 = _lorenz_rate(x, sigma, rho, beta)
    k2 = _lorenz_rate(_along(x, 0.5 * h, k1), sigma, rho, beta)
    k3 = _lorenz_rate(_along(x, 0.5 * h, k2), sigma, rho, beta)
    k4 = _lorenz_rate(_along(x, h, k3), sigma, rho, beta)
    return tuple(
        a + h / 6.0 * (b + 2.0 * (c + d) + e)
        for a, b, c, d, e in zip(x, k1, k2, k3, k4, strict=True)
    )


@unrolled
def _lorenz_rk4_linearised(x: Any, h: Any, sigma: Any, rho: Any, beta: Any) -> Any:
    """The same step, and its derivative by x: each stage is differentiated by the chain rule."""
    one = small.identity(3)

    def stage(at: Any, step: Any, before: Any) -> Any:
        slope = _lorenz_slope(at, sigma, rho, beta)
        if before is None:
            return slope
        inner = tuple(_along(row, step, added) for row, added in zip(one, before, strict=True))
        return small.multiply(slope, inner)

    k1 = _lorenz_rate(x, sigma, rho, beta)
    J1 = stage(x, None, None)
    x2 = _along(x, 0.5 * h, k1)
    k2 = _lorenz_rate(x2, sigma, rho, beta)
    J2 = stage(x2, 0.5 * h, J1)
    x3 = _along(x, 0.5 * h, k2)
    k3 = _lorenz_rate(x3, sigma, rho, beta)
    J3 = stage(x3, 0.5 * h, J2)
    x4 = _along(x, h, k3)
    k4 = _lorenz_rate(x4, sigma, rho, beta)
    J4 = stage(x4, h, J3)
    after = tuple(
        a + h / 6.0 * (b + 2.0 * (c + d) + e)
        for a, b, c, d, e in zip(x, k1, k2, k3, k4, strict=True)
    )
    jacobian = tuple(
        tuple(
            one[i][j] + h / 6.0 * (J1[i][j] + 2.0 * (J2[i][j] + J3[i][j]) + J4[i][j])
            for j in range(3)
        )
        for i in range(3)
    )
    return after, jacobian


def lorenz_advance(state: Array, interval: float, parameters: Array, out: Array) -> None:
    """The Lorenz attractor, one Runge-Kutta step of order 4 over the interval."""
    out[0], out[1], out[2] = _lorenz_rk4(
        (state[0], state[1], state[2]), interval, parameters[2], parameters[3], parameters[4]
    )


def lorenz_linearise(
    state: Array, interval: float, parameters: Array, out: Array, jacobian: Array
) -> None:
    """The same step, with its Jacobian."""
    after, slope = _lorenz_rk4_linearised(
        (state[0], state[1], state[2]), interval, parameters[2], parameters[3], parameters[4]
    )
    for i in range(3):
        out[i] = after[i]
        for j in range(3):
            jacobian[i, j] = slope[i][j]


def lorenz_taylor_advance(state: Array, interval: float, parameters: Array, out: Array) -> None:
    """F(x) x with F = I + sum over j <= order of (A(x) dt)^j / j!, A frozen over the interval.

    KalmanNet, Revach et al., IEEE TSP 2022, eq. 18; of the two ways to write dx/dt = A(x) x this
    is A = [[-s, s, 0], [r - z, -1, 0], [y, 0, -b]], with which its published figures come out.
    """
    sigma, rho, beta, order = parameters[2], parameters[3], parameters[4], int(parameters[5])
    x, y, z = state[0], state[1], state[2]
    a, b, c = x, y, z
    out[0], out[1], out[2] = x, y, z
    for j in range(1, order + 1):
        step = interval / j
        a, b, c = (
            step * sigma * (b - a),
            step * ((rho - z) * a - b),
            step * (y * a - beta * c),
        )
        out[0] += a
        out[1] += b
        out[2] += c


def lorenz_taylor_linearise(
    state: Array, interval: float, parameters: Array, out: Array, jacobian: Array
) -> None:
    """The same, with F(x) itself as Jacobian as in the papers, or the true one of F(x) x."""
    sigma, rho, beta, order = parameters[2], parameters[3], parameters[4], int(parameters[5])
    is_true = parameters[6] != 0.0
    x, y, z = state[0], state[1], state[2]
    a, b, c = x, y, z  # term j of F(x) x
    J00, J01, J02, J10, J11, J12, J20, J21, J22 = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0
    out[0], out[1], out[2] = x, y, z
    jacobian[:, :] = 0.0
    for i in range(3):
        jacobian[i, i] = 1.0
    for j in range(1, order + 1):
        step = interval / j
        extra = a if is_true else 0.0  # of A(x) by y and z, times the term before
        J00, J01, J02, J10, J11, J12, J20, J21, J22 = (
            step * sigma * (J10 - J00),
            step * sigma * (J11 - J01),
            step * sigma * (J12 - J02),
            step * ((rho - z) * J00 - J10),
            step * ((rho - z) * J01 - J11),
            step * ((rho - z) * J02 - J12 - extra),
            step * (y * J00 - beta * J20),
            step * (y * J01 - beta * J21 + extra),
            step * (y * J02 - beta * J22),
        )
        a, b, c = step * sigma * (b - a), step * ((rho - z) * a - b), step * (y * a - beta * c)
        out[0] += a
        out[1] += b
        out[2] += c
        jacobian[0, 0] += J00
        jacobian[0, 1] += J01
        jacobian[0, 2] += J02
        jacobian[1, 0] += J10
        jacobian[1, 1] += J11
        jacobian[1, 2] += J12
        jacobian[2, 0] += J20
        jacobian[2, 1] += J21
        jacobian[2, 2] += J22


_CHAOS = {"sigma": 10.0, "rho": 28.0, "beta": 8.0 / 3.0}

MOTIONS: dict[str, Motion] = {
    "constant_velocity": Motion(
        doc="(p, v) under white acceleration of density process_noise [m^2/s^3]",
        size=lambda dimensions: 2 * dimensions,
        advance=velocity_advance, linearise=velocity_linearise, noise=velocity_noise,
        dimensions=(1, 3), linear=True,
    ),
    "constant_acceleration": Motion(
        doc="(p, v, a) under white jerk of density process_noise [m^2/s^5]",
        size=lambda dimensions: 3 * dimensions,
        advance=acceleration_advance, linearise=acceleration_linearise, noise=acceleration_noise,
        dimensions=(1, 3), linear=True,
    ),
    "coordinated_turn": Motion(
        doc="(p, v, turn rate) with white acceleration of density process_noise [m^2/s^3]; the "
        "rate [rad/s] walks by turn_noise [rad^2/s^3]; a third axis goes straight",
        size=lambda dimensions: 2 * dimensions + 1,
        advance=turn_advance, linearise=turn_linearise, noise=turn_noise,
        parameters={"turn_noise": 1e-4}, dimensions=(2, 3),
    ),
    "random_walk": Motion(
        doc="each number walks by a variance of process_noise per step",
        size=lambda dimensions: dimensions,
        advance=matrix_advance, linearise=matrix_linearise, noise=step_noise, linear=True,
        prepare=lambda dimensions, own: tuple(np.eye(dimensions).ravel()),
    ),
    "canonical": Motion(
        doc="the papers' linear system: F = I with ones in its first row, turned by rotation_deg; "
        "Q = process_noise I per step",
        size=lambda dimensions: dimensions,
        advance=matrix_advance, linearise=matrix_linearise, noise=step_noise,
        parameters={"rotation_deg": 0.0}, linear=True, prepare=_canonical,
    ),
    "sinusoidal": Motion(
        doc="a sin(b x + phi) + delta, number by number; Q = process_noise I per step",
        size=lambda dimensions: dimensions,
        advance=sinusoid_advance, linearise=sinusoid_linearise, noise=step_noise,
        parameters={"a": 0.9, "b": 1.1, "phi": 0.1 * math.pi, "delta": 0.01},
    ),
    "pendulum": Motion(
        doc="(angle, angular velocity) of a rod of `length` [m]; Q = process_noise I per step",
        size=lambda dimensions: 2,
        advance=pendulum_advance, linearise=pendulum_linearise, noise=step_noise,
        parameters={"gravity": 9.81, "length": 1.0}, initial=(math.pi / 2.0, 0.0),
    ),
    "lorenz_rk4": Motion(
        doc="the Lorenz attractor, a Runge-Kutta step of order 4 with its true Jacobian; "
        "Q = process_noise I per step",
        size=lambda dimensions: 3,
        advance=lorenz_advance, linearise=lorenz_linearise, noise=step_noise,
        parameters=_CHAOS, initial=(1.0,),
    ),
    "lorenz_taylor": Motion(
        doc="the Lorenz attractor as the papers step it: exp(A(x) dt) x to `order` terms with A "
        "frozen; Jacobian that matrix itself, or with true_jacobian = 1 the derivative",
        size=lambda dimensions: 3,
        advance=lorenz_taylor_advance, linearise=lorenz_taylor_linearise, noise=step_noise,
        parameters={**_CHAOS, "order": 5.0, "true_jacobian": 0.0}, initial=(1.0,),
    ),
}  # fmt: skip


# --- Observations ---------------------------------------------------------------------------------


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


# --- A model, ready for the kernels ---------------------------------------------------------------


@dataclass(frozen=True)
class StateSpace:
    """A motion and an observation with all their numbers.

    size, rows          n, m: lengths of a state and of an observation
    advance ... observe_linearised   addresses of the compiled functions, for kernels/indirect.py
    parameters, observe_parameters   what they get
    R                   (m, m)  covariance of the observation noise
    angles              (m,)    which rows are angles
    initial             (n,)    mean of the state one interval before the first observation
    initial_covariance  (n, n)
    linear_seen         whether what is seen is H x with the same H for every state
    linear              whether the state moves by F x, too
    step_s              nominal interval between observations [s]
    """

    size: int
    rows: int
    advance: Any
    linearise: Any
    noise: Any
    parameters: Array
    observe: Any
    observe_linearised: Any
    observe_parameters: Array
    R: Array
    angles: Array
    initial: Array
    initial_covariance: Array
    linear_seen: bool
    linear: bool
    step_s: float

    def matrices(self, intervals: Array) -> tuple[Array, Array, Array]:
        """F (time, n, n), Q (time, n, n) and H (m, n) of a linear model for these intervals."""
        n, state, out = self.size, np.zeros(self.size), np.empty(self.size)
        F, Q = np.empty((len(intervals), n, n)), np.empty((len(intervals), n, n))
        _discretise(self.linearise, self.noise, self.parameters, intervals, state, out, F, Q)
        return F, Q, self.seen_matrix()

    def seen_matrix(self) -> Array:
        """H (m, n) of a linear observation."""
        H, state = np.empty((self.rows, self.size)), np.zeros(self.size)
        _observe_at(self.observe_linearised, self.observe_parameters, state, np.empty(self.rows), H)
        return H

    def simulate(
        self, states: Array, observations: Array, intervals: Array, starts: Array, substeps: int = 1
    ) -> None:
        """Let states run and see them.

        states        (tracks * time, n)  given: standard normal numbers of the process noise;
                                          written
        observations  (tracks * time, m)  given: those of the observation noise; written, angles
                                          wrapped
        intervals     (tracks * time,)    [s]
        starts        (tracks, n)         where each track starts; replaced by where it ends
        substeps      steps of the motion within an interval; the noise comes after the last
        """
        n, m = self.size, self.rows
        R_root = np.empty((m, m))
        if not matrices.root(self.R, m, R_root):
            raise ValueError("the covariance of the observation noise is not positive")
        good = _simulate(
            self.advance, self.noise, self.parameters, self.observe, self.observe_parameters,
            R_root, self.angles, intervals, substeps, starts, np.empty(n), np.empty(m),
            np.empty((2, n, n)), states, observations,
        )  # fmt: skip
        if not good:
            raise ValueError("the covariance of the process noise is not positive")


def build(
    motion: str = "constant_velocity",
    observation: str = "position",
    *,
    dimensions: int = 2,
    step_s: float = 1.0,
    process_noise: float = 1.0,
    observation_noise: float | Sequence = 1.0,
    motion_parameters: Mapping[str, float] | None = None,
    observation_parameters: Mapping[str, float] | None = None,
    transition: Rows = (),
    process_covariance: Rows = (),
    observation_matrix: Rows = (),
    observation_covariance: Rows = (),
    initial_state: Sequence = (),
    initial_variance: float | Sequence = 0.0,
) -> StateSpace:
    """A model from names and numbers; ValueError says which of them do not fit.

    motion, observation      keys of MOTIONS, OBSERVATIONS
    dimensions               of space, or of the state where the motion is not one in space
    process_noise            as the motion says
    observation_noise        variance of every row, or of each
    motion_parameters, observation_parameters   own parameters that differ from their defaults
    transition               F in place of a motion, the same for every interval
    process_covariance       Q per step_s in place of the motion's own
    observation_matrix       H in place of an observation
    observation_covariance   R in place of observation_noise
    initial_state            mean one interval before the first observation
    initial_variance         variance of every number of that state, or of each
    """
    moving = _known(MOTIONS, "motion", motion)
    seeing = _known(OBSERVATIONS, "observation", observation)
    own = _own("motion_parameters", moving.parameters, motion_parameters or {}, motion)
    linear_motion = moving.linear
    functions = (moving.advance, moving.linearise, moving.noise)
    if transition:
        F = _square("transition", transition)
        n, tail, linear_motion = len(F), tuple(F.ravel()), True
        functions = (matrix_advance, matrix_linearise, step_noise)
    else:
        low, high = moving.dimensions
        if not low <= dimensions <= high:
            raise ValueError(
                f"dimensions = {dimensions}, but {motion} has {low} to {high} dimensions"
            )
        n = moving.size(dimensions)
        tail = moving.prepare(dimensions, own) if moving.prepare else tuple(own.values())
    parameters: tuple[float, ...] = (process_noise, step_s, *tail)
    if process_covariance:
        Q = _covariance("process_covariance", process_covariance, n)
        parameters = (*parameters, *Q.ravel())
        functions = (*functions[:2], given_noise)
    own = _own(
        "observation_parameters", seeing.parameters, observation_parameters or {}, observation
    )
    linear_observation, angles = seeing.linear, seeing.angles
    observe = (seeing.observe, seeing.linearise)
    if observation_matrix:
        H = np.array(_rectangle("observation_matrix", observation_matrix))
        if H.shape[1] != n:
            raise ValueError(
                f"observation_matrix has {H.shape[1]} columns, but the state has {n} numbers"
            )
        m, seen, linear_observation, angles = len(H), tuple(H.ravel()), True, ()
        observe = (matrix_observe, matrix_observe_linearised)
    else:
        if n < seeing.needs:
            raise ValueError(
                f"observation = '{observation}' needs a state of at least {seeing.needs} numbers, "
                f"but this one has {n}"
            )
        m = seeing.rows(n, dimensions)
        if observation == "velocity" and n < 2 * dimensions:
            raise ValueError(f"observation = 'velocity', but {motion} has no velocities")
        seen = seeing.prepare(n, dimensions, own) if seeing.prepare else tuple(own.values())
    if observation_covariance:
        R = _covariance("observation_covariance", observation_covariance, m)
    else:
        R = np.diag(_each("observation_noise", observation_noise, m, "rows of an observation"))
    wrap = np.zeros(m, np.bool_)
    wrap[list(angles)] = True
    start = initial_state or moving.initial if not transition else initial_state or (0.0,)
    return StateSpace(
        size=n, rows=m,
        advance=address_of(functions[0], "advance"),
        linearise=address_of(functions[1], "linearise"),
        noise=address_of(functions[2], "noise"),
        parameters=np.array(parameters, np.float64),
        observe=address_of(observe[0], "observe"),
        observe_linearised=address_of(observe[1], "observe_linearised"),
        observe_parameters=np.array(seen, np.float64),
        R=R, angles=wrap,
        initial=_each("initial_state", start, n, "numbers in the state"),
        initial_covariance=np.diag(
            _each("initial_variance", initial_variance, n, "numbers in the state")
        ),
        linear_seen=linear_observation, linear=linear_motion and linear_observation,
        step_s=step_s,
    )  # fmt: skip


def _known(models: Mapping[str, Any], what: str, name: str) -> Any:
    if name in models:
        return models[name]
    near = difflib.get_close_matches(name, list(models), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; expected one of {', '.join(models)}"
    raise ValueError(f"{what} = '{name}' is no model{hint}")


def _own(
    what: str, defaults: Mapping[str, float], given: Mapping[str, float], model: str
) -> dict[str, float]:
    for name in given:
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ValueError(f"{what} has '{name}', but those of {model} are: {known}")
    return {**defaults, **given}


def _each(what: str, values: float | Sequence, count: int, of: str) -> Array:
    numbers = np.atleast_1d(np.array(values, np.float64))
    if numbers.size == 1:
        numbers = np.repeat(numbers, count)
    if numbers.size != count:
        raise ValueError(f"{what} has {numbers.size} items, but there are {count} {of}")
    return numbers


def _rectangle(what: str, rows: Rows) -> Rows:
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError(f"{what} has rows of {sorted({len(row) for row in rows})} items")
    return rows


def _square(what: str, rows: Rows) -> Array:
    matrix: Array = np.array(_rectangle(what, rows), np.float64)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{what} has shape {matrix.shape}, but must be square")
    return matrix


def _covariance(what: str, rows: Rows, size: int) -> Array:
    matrix = _square(what, rows)
    if len(matrix) != size:
        raise ValueError(f"{what} has {len(matrix)} rows, but {size} are needed")
    if not np.allclose(matrix, matrix.T, rtol=1e-12, atol=0.0):
        raise ValueError(f"{what} is not symmetric")
    if not matrices.root(matrix, size, np.empty_like(matrix)):
        raise ValueError(f"{what} has a negative eigenvalue, so it is no covariance")
    return matrix


@njit(cache=True, nogil=True)
def _discretise(
    linearise: Any, noise: Any, parameters: Array, intervals: Array, state: Array, out: Array,
    F: Array, Q: Array,
) -> None:  # fmt: skip
    for i in range(intervals.size):
        call_linearise(linearise, state, intervals[i], parameters, out, F[i])
        call_noise(noise, intervals[i], parameters, Q[i])


@njit(cache=True, nogil=True)
def _observe_at(observe: Any, parameters: Array, state: Array, out: Array, H: Array) -> None:
    call_observe_linearised(observe, state, parameters, out, H)


@njit(cache=True, nogil=True)
def _simulate(
    advance: Any, noise: Any, parameters: Array, observe: Any, observe_parameters: Array,
    R_root: Array, angles: Array, intervals: Array, substeps: int, starts: Array, after: Array,
    seen: Array, work: Array, states: Array, observations: Array,
) -> bool:  # fmt: skip
    n, m = after.size, seen.size
    Q, Q_root = work[0], work[1]
    last = np.nan
    length = intervals.size // max(starts.shape[0], 1)
    for i in range(length * starts.shape[0]):
        state = starts[i // length]
        if intervals[i] != last:
            last = intervals[i]
            call_noise(noise, last, parameters, Q)
            if not matrices.root(Q, n, Q_root):
                return False
        for _ in range(substeps):
            call_advance(advance, state, last / substeps, parameters, after)
            for j in range(n):
                state[j] = after[j]
        for j in range(n):
            for k in range(j + 1):
                state[j] += Q_root[j, k] * states[i, k]
        for j in range(n):
            states[i, j] = state[j]
        call_observe(observe, state, observe_parameters, seen)
        for j in range(m):
            for k in range(j + 1):
                seen[j] += R_root[j, k] * observations[i, k]
        for j in range(m):
            observations[i, j] = wrapped(seen[j]) if angles[j] else seen[j]
    return True
