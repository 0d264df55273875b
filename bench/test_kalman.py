"""Kalman filters and a particle filter beside other packages and plain NumPy, on one core."""

from __future__ import annotations

import numpy as np
import pytest

from bench import limit, ours, workloads
from bench.sides import STEPS, Bar, Ours, Peer, add_limit, add_ratio, contest

TIME = 1000
TRACKS, FRAME = 1000, 100
PARTICLES, PARTICLE_TIME = 1000, 100

ALONE = {  # package: what of it, function of bench/peers/kalman.py; the first has the bars
    "NumPy": ("loop, simple form", "numpy_loop"),
    "filterpy": ("predict and update, Joseph form", "filterpy"),
    "OpenCV": ("float64, simple form", "opencv"),
    "dynamax": ("lgssm_filter, jit, float64", "dynamax"),
    "Stone Soup": ("predictor and updater", "stone_soup"),
    "torch-kf": ("float64, simple form", "torch_kf"),
    "simdkalman": ("one series", "simdkalman"),
}
TOGETHER = {
    "dynamax": ("lgssm_filter, jit and vmap, float64", "dynamax"),
    "torch-kf": ("one batch, float64", "torch_kf"),
    "simdkalman": ("many series", "simdkalman"),
    "NumPy": ("stacks of matrices, simple form", "numpy_tracks"),
}
SAME = 1e-6  # of the errors, between filters that compute the same


def multiply_adds(n: int, m: int, *, is_joseph: bool, is_extended: bool = False) -> int:
    """Of one step, where of symmetric matrices one half is computed.

    An extended filter has its Jacobian in place of F x, and h(x) in place of H x; see LORENZ.
    """
    half_n, half_m = n * (n + 1) // 2, m * (m + 1) // 2
    predict = n**3 + n * half_n + (LORENZ if is_extended else n * n)
    gain = m * n * n + n * half_m + m**3 // 2 + n * m * m  # S, its inverse, K
    mean = n * m + (0 if is_extended else m * n)
    simple = m * half_n
    joseph = m * n * n + n**3 + n * half_n + n * m * m + m * half_n
    return predict + gain + mean + (joseph if is_joseph else simple)


# Runge-Kutta of order 4 on the Lorenz system: 4 slopes of 7 multiply-adds and 3 for each stage;
# the Jacobian: 4 products of a slope's Jacobian (7 entries) with a matrix, and 9 for each stage
LORENZ = 4 * (7 + 3) + 4 * (3 * 7 + 9)


def scalar_limit(operations: int) -> tuple[float, str]:
    """Least seconds of a step that is computed number by number."""
    return operations * limit.alone(), f"{operations} multiply-adds, one number at a time"


def vector_limit(operations: int) -> tuple[float, str]:
    """Least seconds of a step of one track among many."""
    return operations * limit.per_number(64), f"{operations} multiply-adds in vectors of float64"


def linear_peers(given, forms):
    """Peers on a linear model, one track or many."""
    size = given.observations.size // 2
    seen = given.observations[0] if len(given.observations) == 1 else given.observations
    inputs = {"observations": seen, **given.matrices()}
    return [
        Peer(name, form, f"kalman.{function}", size, inputs)
        for name, (form, function) in forms.items()
    ]


def agree(given, mine, peer) -> str:
    """Errors, as text; raises where the peer does not compute what we do."""
    rms = given.rms_error(mine.result)
    if peer.absent:
        return ""
    theirs = given.rms_error(peer.result.reshape(mine.result.shape))
    assert abs(theirs - rms) < SAME * rms, f"{peer.name}: rms error {theirs}, ours {rms}"
    return f"rms error {rms:.4f}, theirs {theirs:.4f}"


def compete(once, add, given, what, forms, peers, bars, least_s):
    """Both of our forms beside the first peer, then Joseph form beside the others."""
    found = once(contest, list(forms.values()), peers)
    for (form, mine), bar in zip(forms.items(), bars, strict=True):
        assert 0.3 < given.rms_error(mine.result) < 1.2
        how = agree(given, mine, peers[0])
        add_ratio(add, f"{what}, {form}", mine, peers[0], found, STEPS, bar, how)
        operations = multiply_adds(4, 2, is_joseph=form.startswith("Joseph"))
        add_limit(add, mine, found, STEPS, *least_s(operations))
    mine = next(iter(forms.values()))
    for peer in peers[1:]:
        how = agree(given, mine, peer)
        add_ratio(add, f"  Joseph form beside {peer.name}", mine, peer, found, STEPS, None, how)


def test_one_track(once, add):
    given = workloads.motion(1, TIME)
    forms = {
        "Joseph form": Ours(ours.kalman_track(given, is_joseph=True), TIME),
        "simple form": Ours(ours.kalman_track(given, is_joseph=False), TIME),
    }
    what = f"KF, n = 4, m = 2, one track, frames of {TIME}"
    peers = linear_peers(given, ALONE)
    bars = Bar(120, "80 ns"), Bar(200, "50 ns")
    compete(once, add, given, what, forms, peers, bars, scalar_limit)


def test_many_tracks(once, add):
    given = workloads.motion(TRACKS, FRAME)
    forms = {
        "Joseph form": Ours(ours.kalman_tracks(given, is_joseph=True), TRACKS * FRAME),
        "simple form": Ours(ours.kalman_tracks(given, is_joseph=False), TRACKS * FRAME),
    }
    what = f"KF, n = 4, m = 2, {TRACKS} tracks, frames of {FRAME}"
    peers = linear_peers(given, TOGETHER)
    compete(once, add, given, what, forms, peers, (Bar(4, "10 ns"), Bar(6, "10 ns")), vector_limit)


@pytest.mark.parametrize("form", ["lorenz_taylor", "lorenz_rk4"])
def test_extended(once, add, form):
    given, is_taylor = workloads.lorenz(TIME, form), form == "lorenz_taylor"
    mine = Ours(ours.extended(given), TIME)
    inputs = {
        "observations": given.observations, "Q": workloads.LORENZ_NOISE * np.eye(3),
        "R": given.model.R, "step": workloads.LORENZ_STEP_S, **given.start(),
    }  # fmt: skip
    peer = Peer("NumPy", "loop", "kalman.numpy_extended", TIME, {**inputs, "taylor": is_taylor})
    found = once(contest, [mine], [peer])
    assert given.rms_error(mine.result) < 1.0  # that of the observations
    what = "EKF, Lorenz, " + (
        "frozen-A Taylor of order 5" if is_taylor else "Runge-Kutta, true Jacobian"
    )
    bar = Bar(400, "100 ns")
    add_ratio(add, what, mine, peer, found, STEPS, bar, agree(given, mine, peer))
    if not is_taylor:
        operations = multiply_adds(3, 3, is_joseph=True, is_extended=True)
        add_limit(add, mine, found, STEPS, *scalar_limit(operations))


def test_bootstrap(once, add):
    given = workloads.lorenz(PARTICLE_TIME)
    mine = Ours(ours.bootstrap(given, PARTICLES), PARTICLE_TIME)
    inputs = {
        "observations": given.observations, "Q": workloads.LORENZ_NOISE * np.eye(3),
        "R": given.model.R, "step": workloads.LORENZ_STEP_S, **given.start(), "count": PARTICLES,
    }  # fmt: skip
    peer = Peer("particles", "bootstrap, systematic", "kalman.particles", PARTICLE_TIME, inputs)
    found = once(contest, [mine], [peer])
    rms, how = given.rms_error(mine.result), ""
    assert rms < 0.6
    if not peer.absent:
        theirs = given.rms_error(peer.result)
        assert abs(theirs - rms) < 0.3 * rms
        how = f"rms error {rms:.2f}, theirs {theirs:.2f}"
    what = f"bootstrap particle filter, Lorenz, {PARTICLES} particles"
    add_ratio(add, what, mine, peer, found, STEPS, Bar(10, "30"), how)
