"""The Lorenz attractor, stepped in two ways, in the forms of kernels/motions.py.

Lorenz, "Deterministic nonperiodic flow", J. Atmos. Sci. 20(2), 1963. The parameters after those of
every motion are sigma, rho and beta.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import small
from blocks.kernels.unrolled import unrolled

Array = np.ndarray[Any, Any]


def _rate(x: Any, sigma: Any, rho: Any, beta: Any) -> Any:
    """dx/dt."""
    return sigma * (x[1] - x[0]), x[0] * (rho - x[2]) - x[1], x[0] * x[1] - beta * x[2]


def _slope(x: Any, sigma: Any, rho: Any, beta: Any) -> Any:
    """The Jacobian of dx/dt."""
    return (-sigma, sigma, 0.0), (rho - x[2], -1.0, -x[0]), (x[1], x[0], -beta)


def _along(x: Any, step: Any, slope: Any) -> Any:
    return tuple(a + step * b for a, b in zip(x, slope, strict=True))


@unrolled
def _runge_kutta(x: Any, h: Any, sigma: Any, rho: Any, beta: Any) -> Any:
    """One Runge-Kutta step of order 4."""
    k1 = _rate(x, sigma, rho, beta)
    k2 = _rate(_along(x, 0.5 * h, k1), sigma, rho, beta)
    k3 = _rate(_along(x, 0.5 * h, k2), sigma, rho, beta)
    k4 = _rate(_along(x, h, k3), sigma, rho, beta)
    return tuple(
        a + h / 6.0 * (b + 2.0 * (c + d) + e)
        for a, b, c, d, e in zip(x, k1, k2, k3, k4, strict=True)
    )


@unrolled
def _runge_kutta_linearised(x: Any, h: Any, sigma: Any, rho: Any, beta: Any) -> Any:
    """The same step, and its derivative by x: each stage is differentiated by the chain rule."""
    one = small.identity(3)

    def stage(at: Any, step: Any, before: Any) -> Any:
        slope = _slope(at, sigma, rho, beta)
        if before is None:
            return slope
        inner = tuple(_along(row, step, added) for row, added in zip(one, before, strict=True))
        return small.multiply(slope, inner)

    k1 = _rate(x, sigma, rho, beta)
    J1 = stage(x, None, None)
    x2 = _along(x, 0.5 * h, k1)
    k2 = _rate(x2, sigma, rho, beta)
    J2 = stage(x2, 0.5 * h, J1)
    x3 = _along(x, 0.5 * h, k2)
    k3 = _rate(x3, sigma, rho, beta)
    J3 = stage(x3, 0.5 * h, J2)
    x4 = _along(x, h, k3)
    k4 = _rate(x4, sigma, rho, beta)
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


def runge_kutta_advance(state: Array, interval: float, parameters: Array, out: Array) -> None:
    """The Lorenz attractor, one Runge-Kutta step of order 4 over the interval."""
    out[0], out[1], out[2] = _runge_kutta(
        (state[0], state[1], state[2]), interval, parameters[2], parameters[3], parameters[4]
    )


def runge_kutta_linearise(
    state: Array, interval: float, parameters: Array, out: Array, jacobian: Array
) -> None:
    """The same step, with its Jacobian."""
    after, slope = _runge_kutta_linearised(
        (state[0], state[1], state[2]), interval, parameters[2], parameters[3], parameters[4]
    )
    for i in range(3):
        out[i] = after[i]
        for j in range(3):
            jacobian[i, j] = slope[i][j]


def taylor_advance(state: Array, interval: float, parameters: Array, out: Array) -> None:
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


def taylor_linearise(
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
