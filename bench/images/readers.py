"""Readers of single images that do not learn as networks do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.images.scenes import CASES, SIDE, Drawn, Scene

Array = np.ndarray[Any, Any]
AT_ONCE = 500
#: Numbers (count, n) of images (count, side, side).
Read = Callable[[Array], Array]


class Matching:
    """Reads images by a camera that is known; `bank` are states of which templates are made.

    The templates nearest to an image (all, of a small bank) and what `guess` reads are compared by
    their likelihood, in which each pixel is either what the camera sees, or black or white; the
    best is refined by Gauss-Newton steps, in which a pixel counts by how likely it is the former.
    """

    def __init__(self, scene: Scene, case: str, bank: Array, guess: Read) -> None:
        self.scene, self.bank, self.guess = scene, bank[:, : scene.numbers], guess
        self.share, noise_var = CASES[case]
        self.width = noise_var + 1.0 / (12.0 * scene.levels**2)
        self.templates = scene.draw(bank).reshape(len(bank), -1)

    def __call__(self, images: Array) -> Array:
        flat, guessed = images.reshape(len(images), -1).astype(np.float64), self.guess(images)
        parts = range(0, len(flat), AT_ONCE)
        return np.concatenate(
            [self._part(flat[at : at + AT_ONCE], guessed[at : at + AT_ONCE]) for at in parts]
        )

    def _part(self, flat: Array, guessed: Array) -> Array:
        gone = 0.5 * self.share * (self._density(flat) + self._density(flat - 1.0)) + 1e-6
        states = self._nearest(flat, gone)
        off = self._off(states, flat)
        self._replace(states, off, guessed, flat, gone)
        for _ in range(6):
            seen = (1.0 - self.share) * self._density(off)
            moves = 1e-2 * np.eye(self.scene.numbers)
            slopes = np.stack(
                [(self._off(states + m, flat) - self._off(states - m, flat)) / 2e-2 for m in moves],
                -1,
            )
            weighted = (seen / (seen + gone))[:, :, None] * slopes
            normal = np.einsum("ijk,ijl->ikl", weighted, slopes)
            normal += 1e-6 * np.eye(self.scene.numbers)
            right = np.einsum("ijk,ij->ik", weighted, off)
            tried = states - np.linalg.solve(normal, right[:, :, None])[:, :, 0]
            self._replace(states, off, tried, flat, gone)
        return states

    def _nearest(self, flat: Array, gone: Array) -> Array:
        """The likeliest states of the bank."""
        if len(self.bank) <= 256:
            costs = [self._unlikely(template - flat, gone) for template in self.templates]
            return self.bank[np.argmin(costs, 0)].copy()
        seen = (1.0 - self.share) * self.templates
        far = np.square(seen).sum(1) - 2.0 * (flat - 0.5 * self.share) @ seen.T
        nearest = np.argpartition(far, 5, axis=1)[:, :5].T
        costs = [self._unlikely(self.templates[one] - flat, gone) for one in nearest]
        return self.bank[nearest[np.argmin(costs, 0), np.arange(len(flat))]].copy()

    def _replace(self, states: Array, off: Array, others: Array, flat: Array, gone: Array) -> None:
        """Take other states, and how far they are off, where these are likelier."""
        new = self._off(others, flat)
        better = self._unlikely(new, gone) < self._unlikely(off, gone)
        states[better], off[better] = others[better], new[better]

    def _density(self, off: Array) -> Array:
        return np.exp(-0.5 / self.width * np.square(off))

    def _off(self, states: Array, flat: Array) -> Array:
        return self.scene.draw(states).reshape(len(flat), -1) - flat

    def _unlikely(self, off: Array, gone: Array) -> Array:
        return -np.log((1.0 - self.share) * self._density(off) + gone).sum(-1)


def moments(images: Array) -> Array:
    """Mass, middle and spread of brightness and of greyness, and all products of two of them."""
    axis = np.linspace(-1.0, 1.0, SIDE)
    columns = [np.ones(len(images))]
    for weight in (images, 4.0 * images * (1.0 - images)):
        weight = np.maximum(weight.astype(np.float64), 0.0)
        mass = weight.sum((1, 2)) + 1e-6
        x = np.einsum("ijk,k->i", weight, axis) / mass
        y = np.einsum("ijk,j->i", weight, axis) / mass
        square = np.einsum("ijk,k->i", weight, axis**2) + np.einsum("ijk,j->i", weight, axis**2)
        columns += [mass / 100.0, x, y, square / mass - x**2 - y**2]
    one = np.stack(columns, 1)
    pairs = np.triu_indices(one.shape[1])
    return one[:, pairs[0]] * one[:, pairs[1]]


def centroid(scene: Scene, training: Drawn) -> Read:
    """Reads images by moments fitted to the states."""
    states, images = training.flat
    columns = []
    for k, is_angle in enumerate(scene.angles):
        values = states[:, k]
        columns += [np.cos(values), np.sin(values)] if is_angle else [values]
    fitted = np.linalg.lstsq(moments(images), np.stack(columns, 1), rcond=1e-10)[0]

    def read(images: Array) -> Array:
        told = moments(images) @ fitted
        if scene.name == "pendulum":
            return np.arctan2(told[:, 1:2], told[:, :1])
        return told

    return read
