"""How a state moves: each motion stands here once, with its Jacobian and its noise.

    x[i] = f(x[i-1], dt) + w[i],  w ~ N(0, Q(dt))

A motion is three functions on arrays, of these forms (`parameters` is what the motion says it is):

    advance(state, interval, parameters, out)              out = f(state, interval)
    linearise(state, interval, parameters, out, jacobian)  and jacobian = df/dstate, (n, n)
    noise(interval, parameters, out)                       out = Q(interval), (n, n)

They write every entry of what they are to write, and raise nothing. Filters, smoothers and sources
take them as functions of one compiled signature, so a new motion needs no new kernel: write them in
Python, without decoration, in words that numba compiles, and put them into MOTIONS:

    MOTIONS["decay"] = Motion(
        doc="exponential decay towards 0", size=lambda dimensions: dimensions,
        advance=advance, linearise=linearise, noise=noise, parameters={"rate": 0.1},
    )

`parameters` are process_noise and step_s, then the motion's own in the order of the table, or what
its `prepare` makes of them.

Positions come first in a state, all axes, then velocities, then accelerations. Lengths are in m,
angles in rad, times in s, where the model is of something that moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blocks.kernels import lorenz
from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]
Sequence = tuple[float, ...]


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


def canonical_matrix(size: int) -> Array:
    """The identity with ones in its first row."""
    matrix: Array = np.eye(size)
    matrix[0] = 1.0
    return matrix


def _canonical(dimensions: int, own: Mapping[str, float]) -> Sequence:
    degrees = own["rotation_deg"]
    if degrees and dimensions < 2:
        raise ValueError(f"rotation_deg = {degrees:g} needs 2 dimensions, but there is 1")
    turned = plane_rotation(dimensions, degrees) if degrees else np.eye(dimensions)
    return tuple((turned @ canonical_matrix(dimensions)).ravel())


# --- Scalar systems and a pendulum ----------------------------------------------------------------


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
        advance=lorenz.runge_kutta_advance, linearise=lorenz.runge_kutta_linearise,
        noise=step_noise,
        parameters=_CHAOS, initial=(1.0,),
    ),
    "lorenz_taylor": Motion(
        doc="the Lorenz attractor as the papers step it: exp(A(x) dt) x to `order` terms with A "
        "frozen; Jacobian that matrix itself, or with true_jacobian = 1 the derivative",
        size=lambda dimensions: 3,
        advance=lorenz.taylor_advance, linearise=lorenz.taylor_linearise, noise=step_noise,
        parameters={**_CHAOS, "order": 5.0, "true_jacobian": 0.0}, initial=(1.0,),
    ),
}  # fmt: skip
