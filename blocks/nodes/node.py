"""What function nodes have in common, and what fits them knows of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np

from blocks.kernels.table import Table
from blocks.kernels.trellis import ALPHABETS
from pipeline.errors import WeightsError
from pipeline.frame import Array
from pipeline.weights import Weights

#: Kinds of nodes, imported when they are used.
KINDS = {
    "taps": "blocks.nodes.taps:Taps",
    "class_gaussians": "blocks.nodes.class_gaussians:ClassGaussians",
    "dense": "blocks.nodes.dense:Dense",
    "wiener": "blocks.nodes.wiener:Wiener",
}


class Node(ABC):
    """Gives log p(sample | class), up to a number that the classes share; never changes.

    A class is a branch of the trellis (kernels/trellis.py): the newest symbol and the memory - 1
    before it, newest in the lowest digit. A changed node is a new one, made beside the old.

    kind        of node; weights say it in their `hyper`
    modulation  alphabet of the symbols
    memory      symbols that a sample depends on
    arrays      what was learned
    """

    kind: ClassVar[str] = ""

    def __init__(self, modulation: str, memory: int, arrays: Mapping[str, Array]) -> None:
        self.modulation, self.memory, self.arrays = modulation, memory, dict(arrays)

    @property
    def order(self) -> int:
        """Size of the alphabet."""
        return ALPHABETS[self.modulation].size

    @property
    def n_classes(self) -> int:
        """How many combinations of symbols a sample may depend on."""
        return int(self.order**self.memory)

    @property
    def is_complex(self) -> bool:
        """Whether samples are."""
        return self.modulation == "qpsk"

    @property
    def hyper(self) -> Mapping[str, Any]:
        """What, with the arrays, makes an equal node; JSON."""
        return {"kind": self.kind, "modulation": self.modulation, "memory": self.memory}

    @classmethod
    @abstractmethod
    def of(cls, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """From what weights hold; ValueError says what does not fit."""

    @abstractmethod
    def metrics(self, samples: Array, metrics: Array) -> None:
        """Write branch metrics, -log p(sample | class) up to a number that a row shares.

        samples  (time,)            float32 or complex64
        metrics  (time, n_classes)  written: float32
        """

    @property
    def table(self) -> Table | None:
        """Log-probabilities of real samples as a table, from which many words are decided at once.

        None: there is none, and `metrics` alone counts.
        """
        return None

    def untabled(self) -> Self:
        """The same without a table: slower, but nothing has to be made beforehand."""
        return self

    def losses(self, samples: Array, labels: Array) -> Array:
        """-log p(class | sample) of each sample that has a label, classes equally likely [nat].

        samples  (time,)
        labels   (time,)  int64 class; -1: unknown, left out
        """
        known = labels >= 0
        metrics = np.empty((int(known.sum()), self.n_classes), np.float32)
        self.metrics(np.ascontiguousarray(samples[known]), metrics)
        least = metrics.min(axis=1, keepdims=True)
        total = np.log(np.exp(least - metrics).sum(axis=1))
        own = np.take_along_axis(metrics, labels[known][:, None], axis=1)[:, 0]
        found: Array = own - least[:, 0] + total
        return found

    def weights(self, name: str, *, version: int = 1, parent: int = 0, labels: str = "") -> Weights:
        """As they travel and are stored."""
        return Weights(name, version, self.arrays, self.hyper, parent, labels)


class Fitted(Node):
    """A node that labelled samples determine at once, by a closed form."""

    @abstractmethod
    def fitted(self, samples: Array, labels: Array) -> Self:
        """The node that fits these samples best; ValueError where they do not determine it."""


class Trainable(Node):
    """A node that follows gradients: a function of one vector of parameters."""

    @property
    @abstractmethod
    def parameters(self) -> Array:
        """(n,) float64, a copy."""

    @property
    def scales(self) -> Array:
        """(n,) how far the parameters tend to move, relative to each other."""
        return np.ones(self.parameters.size)

    def prepared(self, samples: Array, labels: Array) -> Self:
        """With what these tell without gradients, before it is trained on them from the start."""
        return self

    @abstractmethod
    def moved(self, parameters: Array) -> Self:
        """The same kind of node with other parameters."""

    @abstractmethod
    def gradient(self, samples: Array, labels: Array) -> tuple[float, Array]:
        """Mean of `losses` over samples with a label, and its gradient (n,) float64.

        ValueError where no sample has a label. Not finite where samples or parameters are not.
        """

    def gradient_at(self, parameters: Array, samples: Array, labels: Array) -> tuple[float, Array]:
        """`gradient` of the node that has these parameters, unrounded."""
        return self.moved(parameters).gradient(samples, labels)

    def hessian_product(self, samples: Array, labels: Array, direction: Array) -> Array:
        """Derivative of the gradient along a direction (n,), float64.

        By a central difference of gradients in float64: a step of 1e-5 leaves some ten digits, and
        seldom passes a kink of a ReLU.
        """
        length = float(np.linalg.norm(direction))
        if length == 0.0:
            return np.zeros(len(direction))
        step = 1e-5 / length * direction
        (_, ahead), (_, behind) = (
            self.gradient_at(self.parameters + by, samples, labels) for by in (step, -step)
        )
        product: Array = (ahead - behind) * (length / 2e-5)
        return product

    @abstractmethod
    def jacobian(self, samples: Array) -> tuple[Array, Array]:
        """Return log p(class | sample), (time, n_classes), and (time, n_classes, n) derivatives."""

    def observed(self, samples: Array, labels: Array) -> tuple[Array, Array]:
        """What labelled samples tell of the parameters: a score, and Fisher's information.

        The score (n,) is the derivative of sum of log p(class | sample) over samples with a label;
        its covariance, were the classes drawn from the node, is rows.T @ rows of rows (k, n). A
        kind that says how samples come about may take log p(sample | class) instead, which tells
        more.
        """
        known = labels >= 0
        logs, slopes = self.jacobian(samples[known])
        own = slopes[np.arange(len(slopes)), labels[known]]
        slopes *= np.exp(0.5 * logs)[:, :, None]
        return own.sum(axis=0, dtype=np.float64), slopes.reshape(-1, slopes.shape[2])

    @abstractmethod
    def descended(
        self, samples: Array, labels: Array, *, steps: int, rate: float, batch: int,
        rng: np.random.Generator,
    ) -> Self:  # fmt: skip
        """After so many steps of Adam, from moments of zero (Kingma and Ba, 2015).

        batch   samples drawn for each step, without replacement; 0: all
        """


def node_of(weights: Weights) -> Node:
    """The node that these weights hold; WeightsError says why there is none."""
    where = f"weights {weights.name!r} v{weights.version}"
    kind = weights.hyper.get("kind")
    if kind not in KINDS:
        raise WeightsError(
            f"{where} are of kind {kind!r}, which is no function node; expected one of "
            f"{', '.join(KINDS)}"
        )
    module, _, name = KINDS[kind].partition(":")
    cls: type[Node] = getattr(import_module(module), name)
    try:
        return cls.of(weights.hyper, weights.arrays)
    except (ValueError, KeyError, TypeError) as error:
        said = f"lack {error}" if isinstance(error, KeyError) else f"are damaged: {error}"
        raise WeightsError(f"{where} {said}") from None


def labels_of(symbols: Array, memory: int, order: int, before: int | None = None) -> Array:
    """The class of each sample of a word or stream, (time,) int64.

    symbols  (time,)  indices into the alphabet
    before   index of the symbol sent before the first; None: unknown, so that the first
             memory - 1 samples have no class: -1

    >>> labels_of(np.array([1, 0, 1, 1]), memory=2, order=2)
    array([-1,  2,  1,  3])
    """
    ahead = np.full(memory - 1, 0 if before is None else before, np.int64)
    all_symbols = np.concatenate([ahead, symbols])
    labels = np.zeros(len(symbols), np.int64)
    for k in range(memory):
        labels += all_symbols[memory - 1 - k :][: len(symbols)] * order**k
    if before is None:
        labels[: memory - 1] = -1
    return labels
