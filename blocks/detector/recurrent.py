"""What detectors have in common that are a recurrent network and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32, Int8

from blocks import fields
from blocks.kernels import sum_product
from blocks.kernels.recurrent_layers import RecurrentLayers
from blocks.kernels.trellis import ALPHABETS
from blocks.late import LateRows
from pipeline.block import FieldType, Learned, param
from pipeline.errors import ConnectError, FieldError, WeightsError
from pipeline.frame import Array, Scalar
from pipeline.weights import Weights

LARGEST = 1e6  # of a sample [V]
LLR_LIMIT = 38.0  # [nat]


class Decided(NamedTuple):
    """What the detector adds."""

    symbols: Annotated[Int8[Array, "*word time"] | Complex64[Array, "*word time"], fields.SYMBOLS]
    llr: Annotated[Float32[Array, "*word time bit"], fields.LLR]


class RecurrentDetector(Learned, ABC):
    """A detector that is a recurrent network: nothing of the channel is built in.

    A subclass says how samples come to the network, and how its answers become probabilities.
    What it keeps of a stream goes on over a swap of weights.
    """

    modulation: Literal["bpsk", "ook", "qpsk"] = param(
        default="bpsk", doc="alphabet of the symbols"
    )
    cell: Literal["lstm", "gru"] = param(default="lstm", doc="kind of recurrent cell")
    layers: int = param(default=2, at_least=1, at_most=16, doc="that follow one another")

    learns_from = ("sent",)
    #: Kind of the weights, and whether the layers run in both directions.
    kind: ClassVar[str]
    both: ClassVar[bool]
    units: int
    window: int

    # What a subclass fills in:

    @property
    @abstractmethod
    def n_in(self) -> int:
        """Numbers in an input of the network."""

    @abstractmethod
    def _words(self, network: RecurrentLayers, parts: Array) -> Array:
        """Probabilities (word, time, order) of words of samples (word, time, parts) float32."""

    @abstractmethod
    def _push(self, network: RecurrentLayers, parts: Array) -> Array:
        """Probabilities (n, order) of the next n symbols of a stream, given its next samples."""

    @abstractmethod
    def _last(self, network: RecurrentLayers) -> Array:
        """Probabilities of the symbols of a stream that are left at its end."""

    @abstractmethod
    def _forget(self) -> None:
        """Begin a stream."""

    # What they have in common:

    @property
    def order(self) -> int:
        """Size of the alphabet."""
        return int(self._alphabet.size)

    @property
    def parts(self) -> int:
        """Numbers in a sample."""
        return 1 + (self.modulation == "qpsk")

    @property
    def hyper(self) -> dict[str, Any]:
        """What weights have to say of themselves."""
        own = {name: getattr(self, name) for name in ("modulation", "cell", "layers", "units")}
        return {"kind": self.kind, **own, "window": self.window}

    @property
    def _alphabet(self) -> Array:
        return ALPHABETS[self.modulation]

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        samples = reads["samples"]
        if samples.dtypes != (self._dtype,):
            raise ConnectError(
                f"{self.name}: 'samples' is {samples}, but for {self.modulation} it must be "
                f"{self._dtype}"
            )
        return {"symbols": FieldType((self._alphabet.dtype.name,), samples.dims)}

    @property
    def _dtype(self) -> str:
        return "complex64" if self.modulation == "qpsk" else "float32"

    def start(self) -> None:
        self._network: RecurrentLayers | None = None
        self._begin()

    def _begin(self) -> None:
        self._late = LateRows(*self._decided(np.empty((0, self.order))))
        self._forget()

    def take(self, weights: Weights) -> None:
        where = f"weights {weights.name!r} v{weights.version}"
        for name, own in self.hyper.items():
            came = weights.hyper.get(name)
            if came != own:
                advice = "train others" + (f", or set {name} = {came!r}" if name != "kind" else "")
                raise WeightsError(
                    f"{where} have {name} = {came!r}, but {self.name} has {own!r}; {advice}"
                )
        try:
            network = RecurrentLayers(
                cell=self.cell, n_in=self.n_in, layers=self.layers, units=self.units,
                order=self.order, both=self.both, arrays=weights.arrays,
            )  # fmt: skip
        except ValueError as error:
            raise WeightsError(f"{where} are damaged: {error}") from None
        if not np.isfinite(self._words(network, np.zeros((1, 1, self.parts), np.float32))).all():
            raise WeightsError(f"{where} make no probabilities; train others")
        self._network = network

    def _now(self) -> RecurrentLayers:
        if self._network is None:
            raise WeightsError(
                f"{self.name}: there are no weights to decide with; train some with `kalvit train "
                "FLOW --block BLOCK` and name them by model = NAME (those that are there: `kalvit "
                "models list`)"
            )
        return self._network

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> list[Decided]:
        network, parts = self._now(), self._parts_of(samples)
        if samples.ndim == 2:
            self._late.check_idle(self.name)
            return [self._decided(self._words(network, parts))]
        self._late.expect(samples.size)
        self._late.add(*self._decided(self._push(network, parts)))
        return self._complete()

    def finish(self) -> list[Decided]:
        if self._network is not None:
            self._late.add(*self._decided(self._last(self._network)))
        return self._complete()

    def _complete(self) -> list[Decided]:
        return [Decided(*rows) for rows in self._late.complete()]

    def _parts_of(self, samples: Array) -> Array:
        """The numbers of samples, (..., time, parts) float32."""
        if samples.dtype.name != self._dtype:
            raise FieldError(
                f"{self.name}: 'samples' is {samples.dtype}; expected {self._dtype} for "
                f"{self.modulation}"
            )
        parts = np.ascontiguousarray(samples).view(np.float32)
        if not (parts.min(initial=0.0) > -LARGEST and parts.max(initial=0.0) < LARGEST):
            wrong = samples[~(np.abs(samples) < LARGEST)][0]
            raise FieldError(
                f"{self.name}: 'samples' holds {wrong}; expected finite numbers below {LARGEST:g} V"
            )
        return parts.reshape(*samples.shape, self.parts)

    def _decided(self, probabilities: Array) -> Decided:
        """Symbols and LLRs from probabilities (..., order) float64."""
        *shape, order = probabilities.shape
        symbols = np.empty(shape, self._alphabet.dtype)
        odds = np.empty((*shape, order.bit_length() - 1))
        flat = np.ascontiguousarray(probabilities, np.float64).reshape(-1, order)
        bits = odds.reshape(-1, order.bit_length() - 1)
        sum_product.decide(flat, self._alphabet, symbols.reshape(-1), bits)
        with np.errstate(divide="ignore"):  # a bit that is ruled out: the limit holds
            np.log(odds, out=odds)
        return Decided(symbols, np.clip(odds, -LLR_LIMIT, LLR_LIMIT).astype(np.float32))

    def state(self) -> Mapping[str, Array | Scalar]:
        return {**self._late.state(), **self._kept()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._late.restore(state)
        self._go_on(state)

    @abstractmethod
    def _kept(self) -> Mapping[str, Array]:
        """What is kept of a stream, copies."""

    @abstractmethod
    def _go_on(self, state: Mapping[str, Any]) -> None:
        """Go on from what `_kept` of an equal block returned."""
