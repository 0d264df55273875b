"""What trainers that learn from accepted words have in common: all but the strategy."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Complex64, Float32, UInt8

from blocks.nodes.node import Node, labels_of, node_of
from blocks.trainer.gated import Gated, Version
from blocks.training.gate import agreement, excess
from blocks.training.labelled import Labelled, Recent, joined
from blocks.training.strategy import Strategy
from pipeline.block import FieldType, param
from pipeline.errors import ConnectError, FieldError, ParameterError, WeightsError
from pipeline.frame import Array, FrameInfo
from pipeline.weights import Weights


class DecisionFeedback(Gated, ABC):
    """Retrains a function node on words that the receiver accepted, or knows as pilots.

    Shlezinger et al., "ViterbiNet", IEEE TWC 19(5), 2020, algorithm 2, with a gate that a receiver
    can have: labels are the re-encoded bits of words that the code accepted and of which it changed
    at most `most_difference` of the bits (Raviv et al., arXiv 2103.13483), never what was sent. A
    word whose labels the serving node finds hardly likelier than chance is not believed either: the
    detector decided with that node, so a decoder that is right agrees with it.

    A subclass says by which strategy a better node is proposed, at the end of each lesson. What
    becomes of it is as Gated says: it is judged by the next word that is fit to learn from, and
    taken back if since then significantly fewer words are accepted than before, or the version
    that served `patience` words ago has the smaller loss on significantly many words.

    samples     (word, time)  float32, or complex64 for QPSK [V]
    accepted    (word)        bool
    reencoded   (word, code)  uint8, 0 or 1, in the order of encoder.modulator
    difference  (word)        float32, share of code bits that the decoder changed
    pilot       (word)        bool, optional: words that the receiver knows

    Returns the weights that serve from here on, where they have changed; else None.
    """

    model: str = param(
        default="", doc="weights to start with, those of the detector: NAME or NAME@VERSION"
    )
    start_state: Literal["known", "unknown"] = param(
        default="known", doc="before each word: always known_symbol, or any, as in the detector"
    )
    known_symbol: int = param(
        default=0, at_least=0, doc="index into the alphabet of the symbol known before each word"
    )
    most_difference: float = param(
        default=0.02, at_least=0.0, at_most=1.0,
        doc="share of code bits that the decoder may have changed in a word to learn from",
    )  # fmt: skip
    least_agreement: float = param(
        default=0.5, at_least=-1.0, at_most=1.0,
        doc="of labels with the serving node, by rank: 1 all are its likeliest, 0 chance",
    )  # fmt: skip
    tolerance: float = param(
        default=2.0, at_least=0.0, unit="standard errors",
        doc="by which a candidate's loss may exceed that of the serving weights",
    )  # fmt: skip
    lesson: int = param(
        default=1, at_least=1, at_most=10_000, unit="words",
        doc="of the stream, of which those that are fit are learned from at once",
    )  # fmt: skip
    patience: int = param(
        default=20, at_least=1, at_most=1000, unit="words",
        doc="for which a version may still be taken back",
    )  # fmt: skip
    longest_wait: int = param(
        default=32, at_least=0, unit="words", doc="left out after refusals, at most"
    )
    #: What its strategy can train.
    trains: ClassVar[type[Any]]

    def _fresh(self) -> Node:
        raise ParameterError(
            "model is missing; name the weights with which the detector starts (`kalvit models "
            "list` shows what there is)"
        )

    def check(self) -> None:
        try:
            first = self._first()
        except WeightsError as error:
            raise ParameterError(str(error)) from None
        if not isinstance(first.node, self.trains):
            raise ParameterError(
                f"model = {self.model!r} is of kind {first.node.kind!r}, which {self.name} cannot "
                "train; closed forms are fitted by trainer.refit, networks trained by the others"
            )
        if self.known_symbol >= first.node.order:
            raise ParameterError(
                f"known_symbol = {self.known_symbol}, but {first.node.modulation} has the symbols "
                f"0 ... {first.node.order - 1}"
            )

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        node = self._first().node
        wanted = "complex64" if node.is_complex else "float32"
        if reads["samples"].dtypes != (wanted,):
            raise ConnectError(
                f"{self.name}: 'samples' is {reads['samples']}, but the node is for "
                f"{node.modulation}; expected {wanted}"
            )
        return {}

    def _node_of(self, weights: Weights) -> Node:
        return node_of(weights)

    def _begin(self) -> None:
        self._gathered = Recent(self.lesson)

    def _counted(self) -> Sequence[str]:
        return "words", "accepted", "not_believed"

    def process(
        self,
        samples: Float32[Array, "word time"] | Complex64[Array, "word time"],
        accepted: Bool[Array, "word"],
        reencoded: UInt8[Array, "word code"],
        difference: Float32[Array, "word"],
        pilot: Bool[Array, "word"] | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Weights | None:
        known = np.zeros(len(samples), bool) if pilot is None else pilot
        labels = self._labels(samples, reencoded)
        before = self._serving
        for k, is_pilot in enumerate(known.tolist()):
            where = {"stream": info.stream, "seq": info.seq, "word": self._counts["words"]}
            word = None
            if accepted[k] or is_pilot:
                word = Labelled(samples[k], labels[k], is_pilot, float(difference[k]))
            self._counts["words"] += 1
            self._counts["accepted"] += bool(accepted[k])
            self._follow(word, -1 if is_pilot else int(accepted[k]), where)
        return None if self._serving is before else self._serving.weights

    def _labels(self, samples: Array, reencoded: Array) -> Array:
        """The class of each sample, (word, time)."""
        node = self._serving.node
        bits = node.order.bit_length() - 1
        words, time = samples.shape
        if reencoded.shape[1] != bits * time:
            raise FieldError(
                f"{self.name}: words have {reencoded.shape[1]} code bits and {time} samples, but "
                f"each symbol of {node.modulation} takes {bits}; expected a sample for each symbol"
            )
        symbols = reencoded.reshape(words, time, bits) @ (1 << np.arange(bits))
        before = self.known_symbol if self.start_state == "known" else None
        labels = np.empty((words, time), np.int64)
        for own, word in zip(labels, symbols, strict=True):
            own[:] = labels_of(word, node.memory, node.order, before)
        return labels

    def _follow(self, word: Labelled | None, accepted: int, where: Mapping[str, Any]) -> None:
        """Go on by one word, which is None if the receiver does not know its symbols."""
        reference, worse = self._watch.reference, -1
        if word is not None and not self._is_credible(word, where):
            word = None
        if word is not None and reference is not None and reference is not self._serving:
            over = excess(self._losses(self._serving, word), self._losses(reference, word))
            worse = int(over > 0.0)
        self._watch.add(self._serving, accepted, worse)
        self._take_back(where)
        if word is not None:
            self._judge(word, where)
            if self._wait:
                self._wait -= 1
            else:
                self._gathered.add(word)
        elif not accepted:
            self._making.lost()
        if self._counts["words"] % self.lesson == 0 and len(self._gathered):
            lesson, self._gathered = _as_one(list(self._gathered)), Recent(self.lesson)
            serving = self._serving.weights
            only_pilots = lesson.pilot and (serving is None or serving.labels != "decisions")
            self._train(lesson, "pilots" if only_pilots else "decisions", where)

    def _is_credible(self, word: Labelled, where: Mapping[str, Any]) -> bool:
        """Whether a word is fit to learn from."""
        if not np.isfinite(word.samples).all():
            self._note("word", where, why="its samples are not finite")
            return False
        if word.pilot:
            return True
        if not word.difference <= self.most_difference:
            return False
        if self._serving.weights is None:
            return True
        metrics = np.empty((len(word.samples), self._serving.node.n_classes), np.float32)
        self._serving.node.metrics(word.samples, metrics)
        agrees = agreement(metrics, word.labels)
        if agrees < self.least_agreement:
            self._counts["not_believed"] += 1
            self._note("word", where, why="its labels are no likelier than by chance",
                       agreement=agrees)  # fmt: skip
            return False
        return True

    def _losses(self, version: Version, word: Labelled) -> Array:
        """Of what knows nothing, those of a guess."""
        if version.weights is None:
            return np.full(np.count_nonzero(word.labels >= 0), np.log(version.node.n_classes))
        losses: Array = version.node.losses(word.samples, word.labels)
        return losses

    def _judge(self, word: Labelled, where: Mapping[str, Any]) -> None:
        """Publish or refuse what is pending, by a word that it has not seen."""
        if self._pending is None:
            return
        candidate, self._pending = self._pending, None
        with np.errstate(all="ignore"):  # what is not finite is seen in the losses
            losses = candidate.node.losses(word.samples, word.labels)
            less = self._losses(self._serving, word)
        self._decide(candidate, losses, less, where)

    def _rehearse(self, strategy: Strategy) -> None:
        node = self._serving.node
        labels = np.arange(4 * node.n_classes) % node.n_classes
        samples = np.zeros(len(labels), np.complex64 if node.is_complex else np.float32)
        samples.flags.writeable = False  # as those of frames are
        strategy.update(node, Labelled(samples, labels, True, 0.0))

    def _fault(self, node: Node) -> tuple[str, str]:
        came, own = (
            (n.kind, n.modulation, n.memory, {key: a.shape for key, a in sorted(n.arrays.items())})
            for n in (node, self._serving.node)
        )
        if came != own:
            return "failed", f"it is another node: {came}, not {own}"
        if not all(np.isfinite(array).all() for array in node.arrays.values()):
            return "not_finite", "its parameters are not finite"
        return "", ""

    def _parts(self) -> Sequence[tuple[str, Any]]:
        return ("gathered", self._gathered), *super()._parts()


def _as_one(words: Sequence[Labelled]) -> Labelled:
    """Words, one after the other, as if they were one."""
    if len(words) == 1:
        return words[0]
    difference = sum(word.difference for word in words) / len(words)
    return Labelled(*joined(words), all(word.pilot for word in words), difference)
