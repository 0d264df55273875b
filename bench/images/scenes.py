"""What is simulated: a pendulum and a Lorenz point, and noisy images of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import camera, state_space
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]

STEPS, SIDE = 200, 28
CASES = {"p=.5": (0.5, 0.0), "p=.1": (0.1, 0.0), "p=.01": (0.01, 0.0), "p=0": (0.0, 0.0),
         "p=.5 s=.2": (0.5, 0.04)}  # fmt: skip


class Scene(NamedTuple):
    """What is simulated, and how many numbers an image shows.

    model    motion, observation and step
    noise    q2
    levels   steps of grey
    angles   of the numbers that are read
    """

    name: str
    model: dict[str, Any]
    noise: float
    levels: int
    angles: tuple[bool, ...]

    @property
    def numbers(self) -> int:
        return len(self.angles)

    def draw(self, states: Array) -> Array:
        """Perfect images of states (count, n), not rounded yet."""
        images = np.empty((len(states), SIDE, SIDE))
        getattr(camera, self.name)(np.ascontiguousarray(states), images)
        return images

    def built(self, process_noise: float, noise_var: Any = 1.0) -> StateSpace:
        return state_space.build(
            **self.model, process_noise=process_noise, observation_noise=noise_var
        )

    def off(self, estimates: Array, states: Array) -> Array:
        """Errors of the leading numbers, angles around the circle."""
        off = estimates - states[..., : estimates.shape[-1]]
        for k in np.flatnonzero(self.angles):
            off[..., k] -= 2.0 * np.pi * np.round(off[..., k] / (2.0 * np.pi))
        return off


SCENES = {
    "pendulum": Scene(
        "pendulum", {"motion": "pendulum", "observation": "angle", "step_s": 0.05}, 1e-3, 255,
        (True,),
    ),
    "lorenz": Scene(
        "lorenz",
        {"motion": "lorenz_taylor", "observation": "identity", "step_s": 0.02,
         "motion_parameters": {"true_jacobian": 1.0}}, 0.1, 8, (False, False, False),
    ),
}  # fmt: skip


class Drawn(NamedTuple):
    """states (count, time, n) and images (count, time, side, side) of them."""

    states: Array
    images: Array

    @property
    def flat(self) -> tuple[Array, Array]:
        return self.states.reshape(-1, self.states.shape[-1]), self.images.reshape(-1, SIDE, SIDE)


def drawn(scene: Scene, case: str, count: int, seed: int) -> Drawn:
    """Trajectories and their images."""
    share, noise_var = CASES[case]
    rng = np.random.default_rng([seed, count])
    model = scene.built(scene.noise)
    states = rng.standard_normal((count * STEPS, model.size))
    seen = rng.standard_normal((count * STEPS, model.rows))
    starts = np.tile(model.initial, (count, 1))
    model.simulate(states, seen, np.full(count * STEPS, model.step_s), starts)
    images = np.rint(scene.draw(states) * scene.levels) / scene.levels
    if share:
        camera.salt_pepper(images, rng.random(images.size), share)
    if noise_var:
        images += np.sqrt(noise_var) * rng.standard_normal(images.shape)
    shape = (count, STEPS)
    return Drawn(
        states.reshape(*shape, -1), images.astype(np.float32).reshape(*shape, SIDE, SIDE)
    )  # fmt: skip
