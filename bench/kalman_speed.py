"""Time per step of the Kalman filters on one core, beside the same filter as a NumPy loop.

The time is that of the thread, so that other load on the machine counts little. The limit is how
long the multiplications and additions of a step last, two at a time fused, at the rate that a loop
of nothing else reached in the same run; stores, divisions and what waits for what come on top. Run
it with: python -m bench.kalman_speed
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from blocks.kernels import small, state_space
from blocks.kernels.extended_kalman import extended
from blocks.kernels.kalman import Track, linear
from blocks.kernels.kalman_tracks import linear_tracks
from blocks.kernels.registers import Pattern, dense, pattern
from blocks.kernels.square_root import square_root
from blocks.kernels.traced import LANES, Traced
from blocks.kernels.unrolled import lanes, put_lanes, unrolled
from blocks.kernels.unscented import unscented

Array = np.ndarray[Any, Any]

REPEATS = 9
STEPS = 4000
TRACKS, TRACK_STEPS = 1000, 50


def best(function: Callable[..., Any], *given: Any, **more: Any) -> float:
    """Shortest of several calls, after one that may compile [s]."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.thread_time()
        function(*given, **more)
        times.append(time.thread_time() - start)
    return min(times[1:])


# --- NumPy loops ----------------------------------------------------------------------------------


def numpy_update(x: Array, P: Array, e: Array, H: Array, R: Array, is_joseph: bool) -> Any:
    """The update of a Kalman filter as it is written down."""
    S = H @ P @ H.T + R
    K = P @ H.T @ np.linalg.inv(S)
    A = np.eye(len(x)) - K @ H
    return x + K @ e, A @ P @ A.T + K @ R @ K.T if is_joseph else A @ P


def numpy_linear(observations: Array, F: Array, Q: Array, H: Array, R: Array, joseph: bool) -> None:
    """The Kalman filter over one track, missing observations predicted only."""
    n = len(F)
    x, P = np.zeros(n), np.eye(n)
    estimates = np.empty((len(observations), n))
    for i, y in enumerate(observations):
        x, P = F @ x, F @ P @ F.T + Q
        if not np.isnan(y).any():
            x, P = numpy_update(x, P, y - H @ x, H, R, joseph)
        estimates[i] = x


def numpy_lorenz(observations: Array, step: float, Q: Array, R: Array) -> None:
    """The extended Kalman filter of the Lorenz attractor, one Runge-Kutta step and its Jacobian."""

    def rate(x: Array) -> Array:
        return np.array(
            [10.0 * (x[1] - x[0]), x[0] * (28.0 - x[2]) - x[1], x[0] * x[1] - 8.0 / 3.0 * x[2]]
        )

    def slope(x: Array) -> Array:
        return np.array([[-10.0, 10.0, 0.0], [28.0 - x[2], -1.0, -x[0]], [x[1], x[0], -8.0 / 3.0]])

    one, x, P = np.eye(3), np.ones(3), np.eye(3)
    estimates = np.empty((len(observations), 3))
    for i, y in enumerate(observations):
        k1 = rate(x)
        J1 = slope(x)
        k2 = rate(x + 0.5 * step * k1)
        J2 = slope(x + 0.5 * step * k1) @ (one + 0.5 * step * J1)
        k3 = rate(x + 0.5 * step * k2)
        J3 = slope(x + 0.5 * step * k2) @ (one + 0.5 * step * J2)
        k4 = rate(x + step * k3)
        J4 = slope(x + step * k3) @ (one + step * J3)
        x = x + step / 6.0 * (k1 + 2.0 * (k2 + k3) + k4)
        F = one + step / 6.0 * (J1 + 2.0 * (J2 + J3) + J4)
        P = F @ P @ F.T + Q
        x, P = numpy_update(x, P, y - x, one, R, True)
        estimates[i] = x


# --- The limit ------------------------------------------------------------------------------------


class _Counting:
    """Stands where LLVM instructions are written, and counts them by name."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values, **flags: self.made.update([name])


def operations(F: Pattern, H: Pattern, R: Pattern, is_joseph: bool) -> int:
    """Fused multiplications and additions that one step of a linear filter cannot do without."""
    counting = _Counting()

    def number(kind: tuple[None, ...] = (None, None)) -> Any:
        is_known = len(kind) < 2
        return float(len(kind)) if is_known else Traced(numba.types.float64, 0, counting)

    def known(shape: Pattern) -> Any:
        return tuple(tuple(number(kind) for kind in row) for row in shape)

    n, m = len(F), len(H)
    x, y = (tuple(number() for _ in range(size)) for size in (n, m))
    P, Q = (small.symmetric(n, lambda i, j: number()) for _ in range(2))
    x, P = small.apply(known(F), x), small.sandwich(known(F), P, Q)
    e = tuple(a - b for a, b in zip(y, small.apply(known(H), x), strict=True))
    small.update(x, P, y, e, known(H), known(R), is_joseph=is_joseph, may_miss=False)
    return max(counting.made["fmul"], counting.made["fadd"] + counting.made["fsub"])


@unrolled
def _busy(values: Array, chains: tuple[None, ...]) -> None:
    rows = [lanes(values, 1 + i) for i in range(len(chains))]
    for _ in range(20):
        rows = [row * values[0, 0] + values[0, 1] for row in rows]
    for i, row in enumerate(rows):
        put_lanes(values, row, 1 + i)


@numba.njit
def _busy_loop(values: Array, chains: tuple[None, ...], count: int) -> None:
    for _ in range(count):
        _busy(values, chains)


def peak(dtype: Any) -> float:
    """Fused multiplications and additions per nanosecond."""
    # 12 AVX2 registers under way, which hides that each operation takes 4 cycles
    chains = 12 * 32 // (LANES * np.dtype(dtype).itemsize)
    values = np.ones((1 + chains, LANES), dtype)
    taken = best(_busy_loop, values, (None,) * chains, 10_000)
    return chains * 20 * LANES * 10_000 / taken / 1e9


# --- The table ------------------------------------------------------------------------------------


def row(what: str, seconds: float, steps: int, loop: float = 0.0, limit: float = 0.0) -> None:
    """Print ns per step, the ratio to the loop and the fraction of the limit [ns]."""
    ours = seconds / steps * 1e9
    ratio = f"{loop / ours:7.0f}x" if loop else " " * 8
    part = f"{limit:6.1f} ns ({limit / ours:4.0%})" if limit else ""
    print(f"{what:56s} {ours:8.1f} ns  {ratio}  {part}", flush=True)


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(1)
    rate = {dtype: peak(dtype) for dtype in (np.float64, np.float32)}
    vector = 4  # float64 in an AVX2 register, of which the peak is
    print(f"load average {os.getloadavg()[0]:.1f}; thread time, best of {REPEATS}")
    print(f"peak {rate[np.float64]:.1f} float64, {rate[np.float32]:.1f} float32 operations per ns")
    print(f"{'':56s} {'per step':>11s}  {'NumPy':>8s}  limit")
    model = state_space.build()
    moves = model.matrices(np.full(1, 0.3))
    full = 0.2 * rng.standard_normal((1, 4, 4)), np.eye(4)[None], rng.standard_normal((2, 4))
    seen = rng.standard_normal((STEPS, 2))
    many = rng.standard_normal((TRACKS, TRACK_STEPS, 2))
    for kind, (F, Q, H), R in (("CV", moves, model.R), ("full", full, model.R + 0.3)):
        shapes = (pattern(F[0]), pattern(H), pattern(R, has_ones=False)) if kind == "CV" else (
            dense(4, 4), dense(2, 4), dense(2, 2)
        )  # fmt: skip
        out = Track.empty((STEPS,), 4, 2)
        for joseph in (True, False):
            form = f"KF n=4 m=2 {kind}, {'Joseph' if joseph else 'simple'}"
            work = operations(*shapes, joseph)
            loop = best(numpy_linear, seen[:400], F[0], Q[0], H, R, joseph) / 400 * 1e9
            start = np.zeros(4), np.eye(4)
            taken = best(linear, seen, F, Q, H, R, *start, out, is_joseph=joseph)
            row(f"{form}, one track", taken, STEPS, loop, work / rate[np.float64] * vector)
            for dtype in (np.float64, np.float32):
                given = [np.ascontiguousarray(A, dtype) for A in (many, F, Q, H, R)]
                starts = np.zeros((TRACKS, 4), dtype), np.zeros((TRACKS, 4, 4), dtype)
                every = Track.empty((TRACKS, TRACK_STEPS), 4, 2, dtype)
                short = every._replace(covariances=np.empty((TRACKS, 0, 4, 4), dtype))
                for track, added in ((every, ""), (short, ", P not kept")):
                    taken = best(linear_tracks, *given, *starts, track, is_joseph=joseph)
                    what = f"{form}, {TRACKS} tracks, {np.dtype(dtype).name}{added}"
                    row(what, taken, TRACKS * TRACK_STEPS, loop, work / rate[dtype])
        taken = best(square_root, seen, F, Q, H, R, np.zeros(4), np.eye(4), out)
        row(f"KF n=4 m=2 {kind}, square root, one track", taken, STEPS)
    lorenz = state_space.build("lorenz_rk4", "identity", step_s=0.02)
    states, seen = rng.standard_normal((2, STEPS, 3))
    intervals = np.full(STEPS, 0.02)
    lorenz.simulate(states, seen, intervals, np.ones((1, 3)))
    out = Track.empty((STEPS,), 3, 3)
    loop = best(numpy_lorenz, seen[:400], 0.02, np.eye(3), lorenz.R) / 400 * 1e9
    for name, kernel in (("extended", extended), ("unscented", unscented)):
        taken = best(kernel, lorenz, seen, intervals, np.ones(3), np.eye(3), out)
        row(f"Lorenz, {name}, one track (NumPy: extended)", taken, STEPS, loop)


if __name__ == "__main__":
    main()
