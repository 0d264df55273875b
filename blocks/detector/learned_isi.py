"""What the detectors with function nodes share: the weights they take, and metrics from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from blocks.detector.sequence import SequenceDetector
from blocks.kernels import max_log, sum_product, viterbi
from blocks.kernels.recursion import Recursion
from blocks.kernels.trellis import Metrics
from blocks.nodes.class_gaussians import ClassGaussians
from blocks.nodes.node import Node, node_of
from blocks.nodes.taps import Taps
from pipeline.block import Learned, param
from pipeline.errors import ParameterError, WeightsError
from pipeline.frame import Array
from pipeline.weights import Weights

LARGEST = 1e6  # of a sample [V]
_MOST = 1e36  # of a metric: float32 holds sums of a hundred of them
_PROBES = np.array([0.0, -0.99 * LARGEST, 0.99 * LARGEST], np.float32)


class Serving(NamedTuple):
    """What gives branch metrics from one frame to the next swap.

    prior   (n_classes,) float32  -log p(newest symbol | those before it), None where all are alike
    """

    node: Node
    prior: Array | None


class LearnedDetector(SequenceDetector, Learned, ABC):
    """A detector whose branch metrics come from a function node (blocks/nodes), which was learned.

    Metrics are computed when their samples come, by the node that serves then; the recursion over
    the trellis is not learned, and its path metrics carry on over a swap. A sample that is NaN,
    infinite or beyond 1e6 V counts as missing: it tells nothing, and the receiver goes on. What a
    sample depends on before the first symbol has to be symbols, because nothing else has a class to
    be learned.
    """

    memory: int = param(
        default=4, at_least=1, at_most=17, unit="symbols", doc="symbols that a sample depends on"
    )
    start_state: Literal["known", "unknown"] = param(
        default="known",
        doc="before a stream, each word, or after a gap: always known_symbol (of channel.isi: "
        "`before`), or any symbols; silence cannot be learned",
    )

    learns_from = ("sent",)
    largest: ClassVar[float] = LARGEST
    erases: ClassVar[bool] = True
    #: Kinds of function nodes that it takes.
    kinds: ClassVar[tuple[str, ...]]

    @property
    def _span(self) -> int:
        return self.memory

    def _refusal(self, is_complex: bool) -> str:
        if is_complex == (self.modulation == "qpsk"):
            return ""
        kind, dtype = ("real", "float32") if is_complex else ("complex", "complex64")
        return f"a function node of {self.modulation} is for {kind} samples; expected {dtype}"

    def start(self) -> None:
        super().start()
        self._serving = self._first()

    def _first(self) -> Serving | None:
        """What serves until weights come."""
        return None

    def take(self, weights: Weights) -> None:
        node = self._served(node_of(weights))
        where = f"weights {weights.name!r} v{weights.version}"
        if node.kind not in self.kinds:
            raise WeightsError(
                f"{where} are of kind {node.kind!r}, but {self.name} takes "
                f"{' or '.join(map(repr, self.kinds))}; train others, or use another detector"
            )
        for name in ("modulation", "memory"):
            came, own = getattr(node, name), getattr(self, name)
            if came != own:
                raise WeightsError(
                    f"{where} have {name} = {came!r}, but {self.name} has {name} = {own!r}; "
                    f"train others, or set {name} = {came!r}"
                )
        serving = Serving(node, self._prior_of(weights, where))
        self._try_out(serving, where)
        self._serving = serving

    def _served(self, node: Node) -> Node:
        """The node in the form in which it decides."""
        return node

    def _prior_of(self, weights: Weights, where: str) -> Array | None:
        """See `Serving`; WeightsError where the weights hold a wrong one."""
        return None

    def _try_out(self, serving: Serving, where: str) -> None:
        """Decide a word, so that nothing is left to be made; WeightsError for wild metrics."""
        samples = _PROBES.astype(np.complex64) if serving.node.is_complex else _PROBES
        with np.errstate(over="ignore", invalid="ignore"):
            metrics = self._metrics(serving, samples)
        infinite = False if serving.prior is None else ~np.isfinite(serving.prior)
        if not ((np.abs(metrics) < _MOST) | infinite).all():
            raise WeightsError(
                f"{where} make metrics that are no numbers or overflow; train others"
            )
        recursion = self._of(serving.node.is_complex)
        self._decide_words(recursion, serving, samples[None])

    def _metrics(self, serving: Serving, samples: Array) -> Array:
        """Branch metrics (time, n_classes) float32 of samples (time,)."""
        metrics = np.empty((samples.size, serving.node.n_classes), np.float32)
        missing = None if self._within(samples) else ~(np.abs(samples) < self.largest)
        if missing is not None:
            samples = np.where(missing, samples.dtype.type(0), samples)
        serving.node.metrics(samples, metrics)
        if missing is not None:
            metrics[missing] = 0.0  # tells nothing: all classes are alike
        if serving.prior is not None:
            metrics += serving.prior
        return metrics

    def _now(self) -> Serving:
        """What serves now; WeightsError where there is nothing."""
        if self._serving is None:
            raise WeightsError(
                f"{self.name}: there are no weights to decide with; train some with `kalvit train "
                "FLOW --block BLOCK` and name them by model = NAME (those that are there: `kalvit "
                "models list`)"
            )
        return self._serving

    def _values(self, recursion: Recursion, samples: Array) -> Array:
        return self._metrics(self._now(), samples.reshape(-1)).reshape(-1)

    def _words(self, recursion: Recursion, samples: Array) -> tuple[Array, ...]:
        return self._decide_words(recursion, self._now(), samples)

    def _decide_words(
        self, recursion: Recursion, serving: Serving, samples: Array
    ) -> tuple[Array, ...]:
        """Results of words (word, time), (word, time, ...) each."""
        words, length = samples.shape
        end, table = self._end_states(length), serving.node.table
        if (
            table is not None
            and serving.prior is None
            and isinstance(recursion, viterbi.Viterbi)
            and self._within(samples)
        ):
            return recursion.decide_by_table(table, samples, end=end)
        values = self._metrics(serving, samples.reshape(-1)).reshape(-1)
        return recursion.decide(values, words, length, length, at_start=True, end=end)

    def _given(self) -> Metrics:
        """Of a recursion that is handed the metrics of classes."""
        return Metrics.given(self._alphabet.size**self.memory, np.float32)

    def _viterbi(self) -> viterbi.Viterbi:
        return viterbi.Viterbi(self._given(), self._alphabet.size, self._start_states())


class NetworkDetector(LearnedDetector, ABC):
    """One whose function node is a network, or a curve."""

    kinds: ClassVar[tuple[str, ...]] = ("dense", "wiener")

    table: bool = param(
        default=True,
        doc="look metrics of a network up in a table: several times faster, but made for 1 to 2 ms "
        "at each swap, which pays if some 10,000 samples come before the next",
    )

    def _served(self, node: Node) -> Node:
        return node if self.table else node.untabled()


class SoftLearnedDetector(LearnedDetector, ABC):
    """One that may tell how likely symbols are."""

    states: bool = param(
        default=True, doc="give the posteriors of the states; without them it is faster"
    )

    @property
    @abstractmethod
    def _algorithm(self) -> str:
        """Which decides: "viterbi", "sum_product" or "max_log"."""

    def _recursion(self, is_complex: bool) -> Recursion:
        if self._algorithm == "viterbi":
            return self._viterbi()
        kind = max_log.MaxLog if self._algorithm == "max_log" else sum_product.SumProduct
        return kind(self._given(), self._alphabet.size, self._start_states(), states=self.states)

    def _fields(self, *results: Array) -> tuple[Array, ...]:
        if self._algorithm == "viterbi":
            (indices,) = results
            nothing = np.empty((*indices.shape, 0), np.float32)
            return self._symbols_of(indices), nothing, nothing
        marginal, posterior = results
        return self._soft_of(marginal, posterior, is_max_log=self._algorithm == "max_log")


class FittedDetector(SoftLearnedDetector, ABC):
    """One whose node a closed form fits; it may start from taps that are known."""

    trained_by = "blocks.trainer.offline:fit_closed_form"

    taps: tuple[float, ...] = param(
        default=(), unit="V",
        doc="impulse response to start with, newest symbol first; none: from `model`",
    )  # fmt: skip
    taps_imag: tuple[float, ...] = param(
        default=(), unit="V", doc="imaginary parts of the taps, for qpsk; none: the taps are real"
    )
    noise_var: float = param(
        default=1.0, above=0.0, unit="V^2",
        doc="noise variance per sample to start with, of both parts if complex",
    )  # fmt: skip
    algorithm: Literal["viterbi", "sum_product", "max_log"] = param(
        default="viterbi",
        doc="viterbi: most likely sequence, no llr, no posterior; sum_product: symbol by symbol; "
        "max_log: most likely sequence with llr and posterior",
    )

    def check(self) -> None:
        super().check()
        if self.taps and len(self.taps) != self.memory:
            raise ParameterError(
                f"taps has {len(self.taps)} items, but memory = {self.memory}; give as many"
            )
        if self.taps_imag and len(self.taps_imag) != len(self.taps):
            raise ParameterError(
                f"taps_imag has {len(self.taps_imag)} items, but taps has {len(self.taps)}; "
                "give one imaginary part per tap, or none"
            )
        if self.taps_imag and self.modulation != "qpsk":
            raise ParameterError(
                f"taps_imag is given, but samples of {self.modulation} are taken as real; give "
                "real taps, or modulation = 'qpsk'"
            )

    @property
    def _algorithm(self) -> str:
        return self.algorithm

    def _first(self) -> Serving | None:
        if not self.taps:
            return None
        is_complex = self.modulation == "qpsk"
        taps: Array = np.array(self.taps, np.complex128 if is_complex else np.float64)
        if self.taps_imag:
            taps = taps + 1j * np.array(self.taps_imag)
        arrays = {"taps": taps, "noise_var": np.array(self.noise_var)}
        return Serving(self._node_of(Taps(self.modulation, self.memory, arrays)), None)

    @abstractmethod
    def _node_of(self, channel: Taps) -> Node:
        """The node for a channel that is known."""


def transition_of(arrays: Mapping[str, Array], shape: tuple[int, int], where: str) -> Array | None:
    """-log of the array "transition", flat float32, or None; WeightsError where it is none.

    shape   (combinations of the memory - 1 symbols before, order): rows sum to one
    """
    if "transition" not in arrays:
        return None
    transition = arrays["transition"]
    if transition.shape != shape:
        raise WeightsError(f"{where}: transition has shape {transition.shape}; expected {shape}")
    if (transition < 0.0).any() or not np.allclose(transition.sum(axis=1), 1.0, atol=1e-3):
        raise WeightsError(f"{where}: transition holds no probabilities; rows must sum to 1")
    with np.errstate(divide="ignore"):  # what never happens is ruled out
        prior: Array = -np.log(transition.reshape(-1)).astype(np.float32)
    return prior


def gaussians_of(channel: Taps) -> ClassGaussians:
    """A Gaussian for each class, alike but for the mean."""
    arrays = {
        "mean": channel.means,
        "variance": np.full(channel.n_classes, float(channel.arrays["noise_var"])),
    }
    return ClassGaussians(channel.modulation, channel.memory, arrays)
