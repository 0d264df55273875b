"""A linear channel behind an unknown curve, as of an amplifier that saturates."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Self

import numpy as np

from blocks.kernels import wiener
from blocks.kernels.adam import Adam
from blocks.kernels.trellis import ALPHABETS, digits
from blocks.nodes.node import Trainable
from blocks.nodes.taps import Taps
from pipeline.frame import Array

CELLS = 8  # pieces of the curve, unless said
#: How far log(noise_var) and bends move, relative to taps: amplifiers change slowly.
NOISE_SCALE, BEND_SCALE = 0.3, 0.2


class Wiener(Trainable):
    """p(sample | class) = N(z(sample); taps . symbols + offset, noise_var) z'(sample).

    The inverse of a Wiener model (Billings and Fakhouri, Automatica 18(1), 1982): noise and a
    linear filter, then a curve without memory. z straightens that curve (kernels/wiener.py); its
    slope is learned, with taps, offset and noise, by what it does for telling classes apart. z'
    is the same for all classes and drops out. Both parts of complex samples pass the same curve.

    arrays: taps (memory,), offset () float64 or complex128; noise_var () float64; bends (cells,)
    float64, log of the slope of z in each cell; knots (cells - 1,) float64, between them [V]
    """

    kind = "wiener"

    def __init__(self, modulation: str, memory: int, arrays: Mapping[str, Array]) -> None:
        super().__init__(modulation, memory, arrays)
        self._curve = np.concatenate([_fixed(self.arrays["knots"]), [np.exp(self.arrays["bends"])]])
        self._design = _design(modulation, memory)
        self._means = self._design @ self._linear
        self._scale = (1.0 if self.is_complex else 0.5) / float(self.arrays["noise_var"])

    @classmethod
    def of(cls, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        memory, cells = int(hyper["memory"]), arrays["bends"].size
        if cells < 3:
            raise ValueError(f"bends has {cells} numbers; expected at least 3")
        shapes = {
            "taps": (memory,), "offset": (), "noise_var": (), "bends": (cells,),
            "knots": (cells - 1,),
        }  # fmt: skip
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name} has shape {arrays[name].shape}; expected {shape}")
        if not arrays["noise_var"] > 0.0:
            raise ValueError(f"noise_var = {arrays['noise_var']}; expected one number above 0")
        if not (np.diff(arrays["knots"]) > 0.0).all():
            raise ValueError("knots do not rise")
        return cls(str(hyper["modulation"]), memory, arrays)

    @classmethod
    def fresh(
        cls, modulation: str, memory: int, samples: Array, labels: Array, *, cells: int = CELLS
    ) -> Self:
        """Least squares on labelled samples and no curve; ValueError where they are too few.

        The knots lie among the samples, closer towards the ends, where an amplifier saturates.
        """
        wide = np.complex128 if np.iscomplexobj(samples) else np.float64
        empty = {"taps": np.zeros(memory, wide), "noise_var": np.array(1.0)}
        linear = Taps(modulation, memory, empty).fitted(samples, labels).arrays
        levels = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, cells) / cells)
        values = _real(samples)
        knots = np.quantile(values, levels)
        if not (np.diff(knots) > 0.0).all():  # few values, as after a quantiser
            knots = np.linspace(values.min(), values.max(), cells + 1)[1:-1]
        if not (np.diff(knots) > 0.0).all():
            raise ValueError("samples that are all the same show no curve; give others")
        arrays = {
            **linear, "offset": np.zeros((), wide), "bends": np.zeros(cells), "knots": knots,
        }  # fmt: skip
        return cls(modulation, memory, arrays)

    @property
    def _linear(self) -> Array:
        """Taps and offset as real numbers, in the order of `_design`."""
        numbers = np.append(self.arrays["taps"], self.arrays["offset"])
        return np.concatenate([numbers.real, numbers.imag]) if self.is_complex else numbers

    def _scratch(self) -> tuple[Array, Array]:
        parts = len(self._design)
        return np.empty((parts, self.arrays["bends"].size)), np.empty((parts, self.n_classes))

    def metrics(self, samples: Array, metrics: Array) -> None:
        wiener.metrics(
            _real(samples), self._curve, self._means, self._scale,
            np.empty(self.arrays["bends"].size), metrics,
        )  # fmt: skip

    @property
    def parameters(self) -> Array:
        log_noise = np.log(self.arrays["noise_var"])
        return np.concatenate([self._linear, [log_noise], self.arrays["bends"]])

    @property
    def scales(self) -> Array:
        linear = np.ones(self._design.shape[2])
        return np.concatenate(
            [linear, [NOISE_SCALE], np.full(self.arrays["bends"].size, BEND_SCALE)]
        )

    def moved(self, parameters: Array) -> Self:
        split = self._design.shape[2]
        linear, log_noise, bends = np.split(parameters, [split, split + 1])
        if self.is_complex:
            linear = linear[: split // 2] + 1j * linear[split // 2 :]
        arrays = {
            "taps": linear[:-1].copy(), "offset": np.array(linear[-1]),
            "noise_var": np.array(np.exp(log_noise[0])), "bends": bends.copy(),
            "knots": self.arrays["knots"],
        }  # fmt: skip
        return type(self)(self.modulation, self.memory, arrays)

    def gradient(self, samples: Array, labels: Array) -> tuple[float, Array]:
        known = labels >= 0
        if not known.any():
            raise ValueError(f"none of {len(labels)} samples has a label")
        found = np.empty(self.parameters.size)
        loss = wiener.gradient(
            _real(samples[known]), labels[known], self._curve,
            self._design, self._means, self._scale, *self._scratch(), np.empty(self.n_classes),
            found,
        )  # fmt: skip
        return loss, found

    def jacobian(self, samples: Array) -> tuple[Array, Array]:
        logs = np.empty((len(samples), self.n_classes))
        found = np.empty((*logs.shape, self.parameters.size))
        wiener.jacobian(
            _real(samples), self._curve, self._design, self._means,
            self._scale, *self._scratch(), logs, found,
        )  # fmt: skip
        return logs, found

    def observed(self, samples: Array, labels: Array) -> tuple[Array, Array]:
        known = labels >= 0
        values, score = _real(samples[known]), np.empty(self.parameters.size)
        rows = np.empty((2 * values.size, score.size))
        wiener.observed(
            values, labels[known], self._curve, self._design,
            self._means, self._scale, score, rows,
        )  # fmt: skip
        return score, rows

    def descended(
        self, samples: Array, labels: Array, *, steps: int, rate: float, batch: int,
        rng: np.random.Generator,
    ) -> Self:  # fmt: skip
        known = np.flatnonzero(labels >= 0)
        node, adam = self, Adam(rate)
        for _ in range(steps):
            drawn = known
            if 0 < batch < known.size:
                drawn = rng.choice(known, batch, replace=False)
            _, slope = node.gradient(samples[drawn], labels[drawn])
            node = node.moved(node.parameters + adam.change(slope))
        return node


def _real(samples: Array) -> Array:
    """Samples as (time, parts) float64."""
    wide = np.complex128 if np.iscomplexobj(samples) else np.float64
    found: Array = np.ascontiguousarray(samples, wide).view(np.float64)
    return found.reshape(len(samples), -1)


def _fixed(knots: Array) -> Array:
    """Knots, how wide the slope takes to change at them, and anchors, (3, cells)."""
    gaps = np.diff(knots)
    widths = 0.25 * (np.append(gaps, gaps[-1]) + np.insert(gaps, 0, gaps[0]))
    rows = [np.append(knots, 0.0), np.append(widths, 1.0), wiener.anchors(knots, widths)]
    return np.array(rows)


@cache
def _design(modulation: str, memory: int) -> Array:
    """What taps and offset are multiplied by, (parts, n_classes, parts (memory + 1))."""
    alphabet = ALPHABETS[modulation]
    places = digits(np.arange(alphabet.size**memory), alphabet.size, memory)
    rows = np.append(alphabet[places], np.ones((len(places), 1)), axis=1)
    if alphabet.dtype.kind != "c":
        return rows[None].astype(np.float64)
    wide = rows.astype(np.complex128)
    parts = [[wide.real, -wide.imag], [wide.imag, wide.real]]
    return np.ascontiguousarray([np.concatenate(part, axis=1) for part in parts])
