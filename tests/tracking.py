"""What tests of trackers begin with: systems, what is observed of them, blocks with weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.source.state_space import StateSpace

#: Parameters of sources and trackers.
LORENZ = {"motion": "lorenz_rk4", "observation": "identity", "step_s": 0.02}
FROZEN_LORENZ = {**LORENZ, "motion": "lorenz_taylor", "process_noise": 0.01}
SPHERICAL = {
    "motion": "lorenz_rk4", "observation": "spherical", "step_s": 0.02, "process_noise": 0.01,
    "observation_noise": (1.0, 0.01, 0.01), "initial_state": (5.0, 7.0, 20.0),
}  # fmt: skip
RADAR = {
    "motion": "coordinated_turn", "observation": "range_bearing",
    "initial_state": (-4000.0, 1000.0, 120.0, -40.0, 0.02),
}  # fmt: skip


def simulated(**values: Any) -> dict[str, Any]:
    """Fields of the first frame of a source.state_space."""
    source = StateSpace(frames=1, **values)
    source.start()
    return source.process()._asdict()


def served(kind: Any, weights: Any, **values: Any) -> Any:
    """A block of this class that has these weights."""
    block = kind(**values)
    block.start()
    block.take(weights)
    return block


def drawn(
    model: Any, count: int, length: int, seed: int, missing: float = 0.0, jitter: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States and observations (count, length, ...) and intervals of a model from its start.

    missing   share of the numbers of observations that are NaN
    jitter    of the intervals, at most, as a share of the nominal one
    """
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((count * length, model.size))
    seen = rng.standard_normal((count * length, model.rows))
    intervals = np.full(count * length, model.step_s)
    if jitter:
        intervals *= rng.uniform(1.0 - jitter, 1.0 + jitter, count * length)
    model.simulate(states, seen, intervals, np.tile(model.initial, (count, 1)))
    if missing:
        seen[rng.random(seen.shape) < missing] = np.nan
    shape = count, length, -1
    return states.reshape(shape), seen.reshape(shape), intervals.reshape(count, length)


def gradients(network: Any, loss: Any) -> dict[str, Any]:
    """Those of autograd by name; the network is left without any."""
    loss.backward()
    found = {name: p.grad.numpy().copy() for name, p in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    return found


def assert_gradients(network: Any, expected: dict[str, Any]) -> None:
    """The network has these, but for rounding in float64."""
    for name, p in network.named_parameters():
        least = 1e-10 * np.abs(expected[name]).max() + 1e-12
        np.testing.assert_allclose(
            p.grad.numpy(), expected[name], rtol=1e-7, atol=least, err_msg=name
        )
