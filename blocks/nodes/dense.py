"""A dense network: the function node of ViterbiNet and of learned factor graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np

from blocks.kernels import dense_gradients
from blocks.kernels.activations import LINEAR, RELU, SIGMOID, TANH
from blocks.kernels.dense import Network
from blocks.kernels.dense_training import Learner
from blocks.kernels.table import Rising, Table
from blocks.kernels.trellis import ALPHABETS
from blocks.nodes.node import Trainable
from pipeline.frame import Array

#: Activations of hidden layers, by name.
ACTIVATIONS = {"linear": LINEAR, "relu": RELU, "sigmoid": SIGMOID, "tanh": TANH}

# Rebuilt within 1 ms, and no decision in ten thousand is another: bench/test_dense_training.py.
_TABLE_ERROR = 2e-2  # [nat]
_TABLE_CELLS = 1024  # at most


class Dense(Trainable):
    """p(class | sample) by dense layers and a softmax, divided by how often classes were met.

    Shlezinger et al., "ViterbiNet", IEEE Trans. Wireless Comm. 19(5), 2020, and "Learned Factor
    Graphs", IEEE Trans. Signal Proc. 70, 2022: 1 -> 100 sigmoid -> 50 relu -> 16. A sample is a
    volt, or two for the parts of a complex one; nothing is scaled. p(sample), which all classes
    share, is left out.

    Real samples go by a table that is linear between its points (kernels/table.py) where `span`
    says what samples have come so far; others through the layers.

    hyper   sizes (n_in, hidden ..., n_classes), activations of the hidden layers, span (least and
            greatest sample, or None)
    arrays  weight0 (n_out, n_in), bias0 (n_out,), weight1 ... float32; prior (n_classes,) float32,
            optional: share of each class in training, equal if not given
    """

    kind = "dense"

    def __init__(
        self, modulation: str, memory: int, arrays: Mapping[str, Array], *,
        activations: Sequence[str], span: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(modulation, memory, arrays)
        n_layers = len(activations) + 1
        weights = [arrays[f"weight{k}"] for k in range(n_layers)]
        self.activations = tuple(activations)
        self.sizes = (weights[0].shape[1], *(len(weight) for weight in weights))
        self.span = None if span is None else (float(span[0]), float(span[1]))

    @classmethod
    def of(cls, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        sizes, activations = tuple(hyper["sizes"]), tuple(hyper["activations"])
        modulation, memory = str(hyper["modulation"]), int(hyper["memory"])
        ends = 1 + (modulation == "qpsk"), ALPHABETS[modulation].size ** memory
        if len(sizes) < 2 or (sizes[0], sizes[-1]) != ends:
            raise ValueError(
                f"sizes = {list(sizes)}, but {modulation} of memory {memory} needs them from "
                f"{ends[0]} to {ends[1]}"
            )
        if len(activations) != len(sizes) - 2 or not set(activations) <= set(ACTIVATIONS):
            raise ValueError(
                f"activations = {list(activations)} for {len(sizes) - 2} hidden layers; each is "
                f"one of {', '.join(ACTIVATIONS)}"
            )
        expected = _shapes(sizes)
        for name, shape in {**expected, "prior": sizes[-1:]}.items():
            if name == "prior" and name not in arrays:
                continue
            if arrays[name].shape != shape:
                raise ValueError(f"{name} has shape {arrays[name].shape}; expected {shape}")
        prior = arrays.get("prior")
        if prior is not None and not (prior > 0.0).all():
            raise ValueError("prior holds shares that are not above 0")
        span = hyper.get("span")
        if span is not None and not (len(span) == 2 and -np.inf < span[0] < span[1] < np.inf):
            raise ValueError(f"span = {span!r}; expected two numbers that rise")
        return cls(modulation, memory, arrays, activations=activations, span=span)

    @classmethod
    def fresh(
        cls, modulation: str, memory: int, *, rng: np.random.Generator,
        hidden: Sequence[int] = (100, 50), activations: Sequence[str] = ("sigmoid", "relu"),
    ) -> Self:  # fmt: skip
        """One that knows nothing: all parameters uniform within 1 / sqrt(n_in), as torch's Linear.

        ValueError where there is not one known activation for each hidden layer.
        """
        sizes = (1 + (modulation == "qpsk"), *hidden, ALPHABETS[modulation].size ** memory)
        arrays = {}
        for k, (n_in, n_out) in enumerate(pairwise(sizes)):
            numbers = rng.uniform(-1.0, 1.0, (n_in + 1, n_out)) / np.sqrt(n_in)
            arrays[f"weight{k}"] = np.ascontiguousarray(numbers[:-1].T, np.float32)
            arrays[f"bias{k}"] = numbers[-1].astype(np.float32)
        hyper = {
            "modulation": modulation, "memory": memory, "sizes": sizes, "activations": activations
        }  # fmt: skip
        return cls.of(hyper, arrays)

    @property
    def hyper(self) -> Mapping[str, Any]:
        return {
            **super().hyper, "sizes": list(self.sizes), "activations": list(self.activations),
            "span": None if self.span is None else list(self.span),
        }  # fmt: skip

    @cached_property
    def network(self) -> Network:
        """Layers that give log p(sample | class), up to a number that classes share."""
        return Network.of(self._likelihoods, self.kinds, normalise=True)

    @cached_property
    def table(self) -> Table | None:
        """The same as a table, where samples are real and their span is known."""
        if self.span is None or self.is_complex or not np.isfinite(self.parameters).all():
            return None
        rises = len(self.sizes) > 3 and set(self.activations) == {"relu"}
        function: Any = Rising.of(self._likelihoods) if rises else self.network
        return Table.of(function, self.n_classes, *self.span, _TABLE_ERROR, _TABLE_CELLS)

    def untabled(self) -> Self:
        return type(self)(
            self.modulation, self.memory, self.arrays, activations=self.activations, span=None
        )

    def metrics(self, samples: Array, metrics: Array) -> None:
        if self.table is None:
            self.network(self._inputs(samples, np.float32), metrics)
        else:
            self.table.log_probabilities(np.require(samples, np.float32, ["C", "W"]), metrics)
        np.negative(metrics, out=metrics)

    def losses(self, samples: Array, labels: Array) -> Array:
        known = labels >= 0
        found = np.empty((int(known.sum()), self.n_classes), np.float32)
        self.network(self._inputs(samples[known], np.float32), found)  # no table for a few samples
        own: Array = -np.take_along_axis(found, labels[known][:, None], axis=1)[:, 0]
        return own

    @property
    def parameters(self) -> Array:
        parts = [self.arrays[name].ravel() for name in _shapes(self.sizes)]
        return np.concatenate(parts).astype(np.float64)

    def prepared(self, samples: Array, labels: Array) -> Self:
        counts = np.bincount(labels[_known(labels)], minlength=self.n_classes) + 1.0
        prior = (counts / counts.sum()).astype(np.float32)
        return self._changed(self.parameters, self.span, {**self.arrays, "prior": prior})

    def moved(self, parameters: Array) -> Self:
        return self._changed(parameters, self.span, self.arrays)

    def gradient_at(self, parameters: Array, samples: Array, labels: Array) -> tuple[float, Array]:
        known = _known(labels)
        inputs = self._inputs(samples[known], np.float64)
        layers = self._layers(self._arrays_of(parameters))
        return dense_gradients.gradient(layers, self.kinds, inputs, labels[known])

    def gradient(self, samples: Array, labels: Array) -> tuple[float, Array]:
        return self.gradient_at(self.parameters, samples, labels)

    def jacobian(self, samples: Array) -> tuple[Array, Array]:
        inputs = self._inputs(samples, np.float32)
        return dense_gradients.jacobian(self._layers(self.arrays), self.kinds, inputs)

    def descended(
        self, samples: Array, labels: Array, *, steps: int, rate: float, batch: int,
        rng: np.random.Generator,
    ) -> Self:  # fmt: skip
        known = _known(labels)
        samples, labels = samples[known], labels[known]
        inputs = self._inputs(samples, np.float32)
        batches = batches_of(len(labels), steps, batch, rng)
        learner = Learner(self.sizes, self.kinds)
        _, parameters = learner.adam(self.parameters, inputs, labels, batches, rate)
        return self._changed(parameters, self._wider(samples), self.arrays)

    def _changed(
        self, parameters: Array, span: Sequence[float] | None, arrays: Mapping[str, Array]
    ) -> Self:
        changed = {
            name: part.astype(np.float32) for name, part in self._arrays_of(parameters).items()
        }
        return type(self)(
            self.modulation, self.memory, {**arrays, **changed}, activations=self.activations,
            span=span,
        )  # fmt: skip

    def _arrays_of(self, parameters: Array) -> dict[str, Array]:
        """Views of a vector of parameters, by the names of the arrays."""
        arrays, at = {}, 0
        for name, shape in _shapes(self.sizes).items():
            size = math.prod(shape)
            arrays[name] = parameters[at : at + size].reshape(shape)
            at += size
        return arrays

    def _wider(self, samples: Array) -> tuple[float, float] | None:
        """The span, and these samples in it."""
        finite = samples[np.isfinite(samples)]
        if self.is_complex or not finite.size:
            return self.span
        low, high = float(finite.min()), float(finite.max())
        if self.span is not None:
            low, high = min(low, self.span[0]), max(high, self.span[1])
        return (low, high) if low < high else None

    @property
    def kinds(self) -> list[int]:
        """Activations of the layers, as the kernels number them; the last is linear."""
        return [*(ACTIVATIONS[name] for name in self.activations), LINEAR]

    def _layers(self, arrays: Mapping[str, Array]) -> list[tuple[Array, Array]]:
        return [
            (arrays[f"weight{k}"], arrays[f"bias{k}"]) for k in range(len(self.activations) + 1)
        ]

    @cached_property
    def _likelihoods(self) -> list[tuple[Array, Array]]:
        """The layers, with biases of the last that divide by the prior."""
        layers = self._layers(self.arrays)
        if "prior" in self.arrays:
            weight, bias = layers[-1]
            layers[-1] = weight, bias - np.log(self.arrays["prior"])
        return layers

    def _inputs(self, samples: Array, dtype: Any) -> Array:
        wide = np.result_type(dtype, np.complex64) if self.is_complex else dtype
        flat = np.require(samples, wide, ["C", "W"])
        inputs: Array = flat.view(dtype).reshape(len(samples), self.sizes[0])
        return inputs


def batches_of(count: int, steps: int, batch: int, rng: np.random.Generator) -> Array:
    """Which samples each step looks at, (steps, batch) int64; 0: all, in their order.

    Samples are used in turn, in a random order that is drawn anew when too few are left.
    """
    if not 0 < batch < count:
        return np.tile(np.arange(count), (steps, 1))
    rows = count // batch
    passes = [
        rng.permutation(count)[: rows * batch].reshape(rows, batch)
        for _ in range((steps + rows - 1) // rows)
    ]
    return np.concatenate(passes)[:steps] if passes else np.empty((0, batch), np.int64)


def _known(labels: Array) -> Array:
    known = labels >= 0
    if not known.any():
        raise ValueError(f"none of {len(labels)} samples has a label")
    return known


def _shapes(sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Of the arrays that are parameters, in the order of the parameters."""
    shapes: dict[str, tuple[int, ...]] = {}
    for k, (n_in, n_out) in enumerate(pairwise(sizes)):
        shapes[f"weight{k}"], shapes[f"bias{k}"] = (n_out, n_in), (n_out,)
    return shapes
