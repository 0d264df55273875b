"""What trainers that learn from accepted words have in common: all but the strategy."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Complex64, Float32, UInt8

from blocks.nodes.node import Node, labels_of, node_of
from blocks.training.budget import Budget, TooLate
from blocks.training.gate import agreement, excess
from blocks.training.labelled import Labelled, Recent, joined
from blocks.training.strategy import Strategy
from blocks.training.watch import Watch
from pipeline.block import FieldType, Trainer, param
from pipeline.errors import ConnectError, FieldError, ParameterError, WeightsError
from pipeline.frame import Array, FrameInfo, Scalar
from pipeline.metrics import Histogram
from pipeline.models import Models
from pipeline.weights import Weights

MOST_NOTES = 10_000  # that wait to be written down
REASONS = ("worse", "not_finite", "failed", "too_late")


class Version(NamedTuple):
    """A node with the weights as which it was published; None: it knows nothing yet."""

    weights: Weights | None
    node: Node


class Candidate(NamedTuple):
    """A node that waits for a word on which to prove itself."""

    node: Node
    labels: str  # what it learned from: decisions or pilots


class DecisionFeedback(Trainer, ABC):
    """Retrains a function node on words that the receiver accepted, or knows as pilots.

    Shlezinger et al., "ViterbiNet", IEEE TWC 19(5), 2020, algorithm 2, with a gate that a receiver
    can have: labels are the re-encoded bits of words that the code accepted and of which it changed
    at most `most_difference` of the bits (Raviv et al., arXiv 2103.13483), never what was sent. A
    word whose labels the serving node finds hardly likelier than chance is not believed either: the
    detector decided with that node, so a decoder that is right agrees with it.

    A subclass says by which strategy a better node is proposed, at the end of each lesson. It is
    pending until the next word that is fit to learn from; neither it nor what serves was trained on
    that one. There it is published, unless its mean loss exceeds that of the serving node by more
    than `tolerance` standard errors of the paired difference, or anything is not finite. After
    k refusals in a row 2^k words that are fit pass, at most `longest_wait`, before it goes on.

    A version that turns out worse is taken back: if since the change significantly fewer words are
    accepted than before, or the version that served `patience` words ago has the smaller loss on
    significantly many words (training/watch.py has both tests), that one is published again, under
    its number.

    A strategy may take `budget_s` for a word. One that takes longer is given up and begins anew,
    once what it was doing has ended; so a step that never ends costs what it learns and nothing
    else. With an integer delay of the feedback edge, results depend on the machine as soon as an
    update meets that bound; 0 has none.

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
    budget_s: float = param(
        default=10.0, at_least=0.0, unit="s", doc="time that an update may take; 0: any"
    )

    #: What its strategy can train.
    trains: ClassVar[type[Any]]

    @abstractmethod
    def _strategy(self) -> Strategy:
        """A fresh one, which remembers nothing."""

    def _fresh(self) -> Node:
        """A node that knows nothing, where no model is given."""
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

    def _first(self) -> Version:
        """What serves at the start."""
        if not self.model:
            return Version(None, self._fresh())
        weights = Models().load(self.model)
        return Version(weights, node_of(weights))

    def start(self) -> None:
        self._serving = self._first()
        self._newest = self._serving.weights.version if self._serving.weights else 0
        self._pending: Candidate | None = None
        self._gathered = Recent(self.lesson)
        self._watch = Watch(self.patience)
        self._budget = Budget(self.budget_s)
        self._making = self._rehearsed()
        self._refused_in_a_row = self._wait = 0
        self._counts = dict.fromkeys(
            ("words", "accepted", "not_believed", "trained", "published", "rolled_back", *REASONS),
            0,
        )
        self._update_ns, self._longest_ns = Histogram(), 0
        self._notes: deque[Mapping[str, Any]] = deque(maxlen=MOST_NOTES)

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
            self._train(lesson, where)

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
        return version.node.losses(word.samples, word.labels)

    def _take_back(self, where: Mapping[str, Any]) -> None:
        """Let the version serve again that served before, if it was better."""
        reference = self._watch.reference
        if reference is self._serving or reference.weights is None:
            return  # nothing to return to
        if why := self._watch.alarm():
            left, self._serving = self._serving, reference
            self._watch.returned()
            self._pending = None
            self._counts["rolled_back"] += 1
            self._back_off()
            self._note("returned", where, version=reference.weights.version,
                       instead_of=left.weights.version if left.weights else 0, why=why)  # fmt: skip

    def _judge(self, word: Labelled, where: Mapping[str, Any]) -> None:
        """Publish or refuse what is pending, by a word that it has not seen."""
        if self._pending is None:
            return
        (node, labels), self._pending = self._pending, None
        serving = self._serving
        with np.errstate(all="ignore"):  # what is not finite is seen in the losses
            losses = node.losses(word.samples, word.labels)
            less = self._losses(serving, word)
        if not np.isfinite(losses).all():
            self._refuse("not_finite", where, why="its losses are not finite")
            return
        over = excess(losses, less)
        scores = {"loss": float(losses.mean()), "serving_loss": float(less.mean())}
        if over > self.tolerance:
            self._refuse("worse", where, why="its loss is greater", **scores)
            return
        parent = serving.weights
        try:
            weights = node.weights(
                parent.name if parent else node.kind, version=self._newest + 1,
                parent=parent.version if parent else 0, labels=labels,
            )  # fmt: skip
        except WeightsError as error:
            self._refuse("not_finite", where, why=str(error))
            return
        self._newest += 1
        self._serving = Version(weights, node)
        self._counts["published"] += 1
        self._refused_in_a_row = 0
        self._note("published", where, version=weights.version, parent=weights.parent,
                   labels=labels, **scores)  # fmt: skip

    def _train(self, word: Labelled, where: Mapping[str, Any]) -> None:
        """Let the strategy propose something."""
        if self._budget.busy:
            return
        before = time.monotonic_ns()
        try:
            node = self._budget.run(lambda: self._making.update(self._serving.node, word))
            self._clock(time.monotonic_ns() - before)
            reason, why = ("", "") if node is None else _fault(node, self._serving.node)
        except TooLate as error:
            self._making = self._strategy()  # what goes on has the other one
            self._clock(time.monotonic_ns() - before)
            reason, why = "too_late", str(error)
        except Exception as error:
            reason, why = "failed", f"{type(error).__name__}: {error}"
        if reason:
            self._refuse(reason, where, why=why)
        elif node is not None:
            self._counts["trained"] += 1
            serving = self._serving.weights
            only_pilots = word.pilot and (serving is None or serving.labels != "decisions")
            self._pending = Candidate(node, "pilots" if only_pilots else "decisions")

    def _refuse(self, reason: str, where: Mapping[str, Any], **about: Any) -> None:
        self._counts[reason] += 1
        self._back_off()
        self._note("refused", where, reason=reason, **about)

    def _back_off(self) -> None:
        self._refused_in_a_row += 1
        self._wait = min(2 ** min(self._refused_in_a_row, 30), self.longest_wait)

    def _clock(self, ns: int) -> None:
        self._update_ns.add([ns])
        self._longest_ns = max(self._longest_ns, ns)

    def _note(self, event: str, where: Mapping[str, Any], **about: Any) -> None:
        said = {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in about.items()
        }  # JSON has no infinity
        self._notes.append({"event": event, **where, **said})

    def _rehearsed(self) -> Strategy:
        """A fresh strategy; before, one that is thrown away has compiled what it needs.

        Compiling may take longer than an update may.
        """
        node = self._serving.node
        labels = np.arange(4 * node.n_classes) % node.n_classes
        samples = np.zeros(len(labels), np.complex64 if node.is_complex else np.float32)
        samples.flags.writeable = False  # as those of frames are
        with suppress(Exception), np.errstate(all="ignore"):
            self._strategy().update(node, Labelled(samples, labels, True, 0.0))
        return self._strategy()

    def notes(self) -> Sequence[Mapping[str, Any]]:
        notes = list(self._notes)
        self._notes.clear()
        return notes

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        serving = self._serving.weights
        counts = {key: count for key, count in self._counts.items() if key not in REASONS}
        return {
            **counts,
            "refused": sum(self._counts[reason] for reason in REASONS),
            **{f"refused_{reason}": self._counts[reason] for reason in REASONS},
            "version": serving.version if serving else 0,
            "newest_version": self._newest,
            "update_s": [self._update_ns.quantile(0.5) / 1e9, self._longest_ns / 1e9],
        }

    def state(self) -> Mapping[str, Array | Scalar]:
        seen = list(self._watch.seen)
        held = [self._serving]  # versions that may serve again, each once
        held += [word.serving for word in seen[-self.patience :]]
        versions = list({id(version): version for version in held}.values())
        places = {id(version): place for place, version in enumerate(versions)}
        notes = {
            "counts": self._counts,
            "newest": self._newest,
            "refused_in_a_row": self._refused_in_a_row,
            "wait": self._wait,
            "seen": [(places.get(id(w.serving), -1), w.accepted, w.worse) for w in seen],
            "pending": self._pending.labels if self._pending else "",
        }
        found: dict[str, Array | Scalar] = {"notes": json.dumps(notes)}
        for place, version in enumerate(versions):
            found[f"version.{place}"] = _as_bytes(version.weights)
        if self._pending:
            found["pending"] = _as_bytes(self._pending.node.weights("pending"))
        for part, remembers in self._parts():
            for name, value in remembers.state().items():
                is_array = isinstance(value, np.ndarray)
                found[f"{part}.{name}"] = np.array(value) if is_array else value
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        notes = json.loads(state["notes"])
        first = self._first()
        versions: list[Version] = []
        while (held := state.get(f"version.{len(versions)}")) is not None:
            weights = Weights.from_bytes(held.tobytes()) if held.size else None
            versions.append(Version(weights, node_of(weights)) if weights else first)
        self._serving = versions[0]
        self._counts, self._newest = notes["counts"], notes["newest"]
        self._refused_in_a_row, self._wait = notes["refused_in_a_row"], notes["wait"]
        self._watch = Watch(self.patience)
        for place, accepted, worse in notes["seen"]:
            self._watch.add(versions[place] if place >= 0 else None, accepted, worse)
        self._pending = None
        if notes["pending"]:
            node = node_of(Weights.from_bytes(state["pending"].tobytes()))
            self._pending = Candidate(node, notes["pending"])
        self._gathered, self._making = Recent(self.lesson), self._strategy()
        for part, remembers in self._parts():
            prefix = f"{part}."
            remembers.restore(
                {
                    name.removeprefix(prefix): state[name]
                    for name in state
                    if name.startswith(prefix)
                }
            )

    def _parts(self) -> Sequence[tuple[str, Any]]:
        """What has a state of its own."""
        return ("gathered", self._gathered), ("strategy", self._making)


def _as_one(words: Sequence[Labelled]) -> Labelled:
    """Words, one after the other, as if they were one."""
    if len(words) == 1:
        return words[0]
    difference = sum(word.difference for word in words) / len(words)
    return Labelled(*joined(words), all(word.pilot for word in words), difference)


def _fault(node: Node, serving: Node) -> tuple[str, str]:
    """For what reason, and why, a node cannot come in the place of the serving one; or nothing."""
    came, own = (
        (n.kind, n.modulation, n.memory, {name: a.shape for name, a in sorted(n.arrays.items())})
        for n in (node, serving)
    )
    if came != own:
        return "failed", f"it is another node: {came}, not {own}"
    if not all(np.isfinite(array).all() for array in node.arrays.values()):
        return "not_finite", "its parameters are not finite"
    return "", ""


def _as_bytes(weights: Weights | None) -> Array:
    """(n,) uint8; none of what is published as nothing."""
    return np.frombuffer(weights.to_bytes() if weights else b"", np.uint8)
