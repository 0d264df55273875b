"""Receivers that learn from their own accepted words, over measured and simulated fading.

    python -m bench.online                     # all tables
    python -m bench.online --quick             # fewer words, wide intervals
    python -m bench.online --json online.json

The experiment of Meta-ViterbiNet (Raviv et al., arXiv 2103.13483): words of RS(17, 15), 136 bits of
BPSK over four taps that change from word to word; every 25th is a pilot. Each word is detected by
what serves (Viterbi with traceback; the symbol before the word is known), decoded, and learned from
if the decoder accepts it: nothing looks at what was sent but the figures. What a strategy proposes
after a word is pending until the next word that is accepted, and serves from the one after that, if
it is not worse there (training/gate.py): the same for all, least squares too. Bits, noise and taps
are the same for all. bench/ONLINE.md holds a run, and says what was chosen and how.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blocks.channel.isi import Isi
from blocks.channel.noise import variance
from blocks.kernels import reed_solomon, trellis, viterbi
from blocks.kernels.reed_solomon_code import FAILED
from blocks.nodes.class_gaussians import ClassGaussians
from blocks.nodes.dense import Dense
from blocks.nodes.node import Node, labels_of
from blocks.nodes.taps import Taps
from blocks.nodes.wiener import Wiener
from blocks.training.augmented import Augmented
from blocks.training.bayesian import Bayesian
from blocks.training.continued import Continued
from blocks.training.gate import excess
from blocks.training.labelled import Labelled
from blocks.training.meta import Meta
from blocks.training.refit import Refit
from blocks.training.strategy import Strategy
from pipeline.block import Context
from pipeline.instance import drive

Array = np.ndarray[Any, Any]

COST2100 = Path(__file__).parents[2] / "shared" / "data" / "cost2100"
MEMORY, N, K, WORDS, PILOT_EVERY = 4, 17, 15, 300, 25
MOST_DIFFERENCE, TOLERANCE = 0.06, 2.0  # the gate; 0.06: all that the code can change in a byte
SNRS_DB = (8.0, 10.0, 12.0)
TRAINING = (
    2000  # first seed of what networks begin with; settings were chosen on seeds from 1000 on
)


# --- The air --------------------------------------------------------------------------------------


class Scenario(NamedTuple):
    """A channel, and one like it on which networks may train beforehand."""

    name: str
    channel: Mapping[str, Any]
    training: Mapping[str, Any]


class Air(NamedTuple):
    """What was sent and came, (runs, words, ...)."""

    bits: Array  # (runs, words, 8 K) uint8
    classes: Array  # (runs, words, 8 N) int64
    samples: Array  # (runs, words, 8 N) float32
    taps: Array  # (words, MEMORY)
    noise_var: float
    tanh: float


def codec() -> reed_solomon.Codec:
    """RS(17, 15) over GF(256)."""
    return reed_solomon.Codec(N, K, 0x11D, 0, 2)


def on_air(channel: Mapping[str, Any], snr_db: float, seeds: Sequence[int]) -> Air:
    """Words of random bits, coded, BPSK, through a channel; a symbol -1 before each word."""
    bits, classes, samples = [], [], []
    for seed in seeds:
        rng = np.random.default_rng([seed, 1])
        own = rng.integers(0, 2, (WORDS, 8 * K), dtype=np.uint8)
        coded = np.unpackbits(codec().encode(np.packbits(own, axis=1)), axis=1)
        block = Isi(**channel, snr_db=snr_db, before=-1)
        (added,) = drive(block, [{"sent": trellis.ALPHABETS["bpsk"][coded]}],
                         context=Context(seed=seed))  # fmt: skip
        bits.append(own)
        classes.append([labels_of(word, MEMORY, 2, before=0) for word in coded])
        samples.append(added["samples"])
    of_word = np.arange(WORDS) * 8 * N // channel.get("coherence", 8 * N)
    taps = added["taps"].astype(np.float64)[of_word]
    return Air(
        np.array(bits), np.array(classes), np.array(samples), taps, variance(snr_db),
        channel.get("tanh", 0.0),
    )  # fmt: skip


# --- Receivers ------------------------------------------------------------------------------------


class Receiver(NamedTuple):
    """A node to begin with, made from the first word, which is a pilot; and how it learns."""

    name: str
    first: Callable[[Array, Array], Node]
    strategy: Callable[[], Strategy]


class Online:
    """One run of a receiver: what serves, what is pending."""

    def __init__(self, receiver: Receiver, samples: Array, classes: Array) -> None:
        self.serving = receiver.first(samples, classes)
        self._strategy = receiver.strategy()
        self._pending: Node | None = None
        self.trained = self.published = 0

    def learn(self, word: Labelled) -> None:
        """Judge what is pending by a word that it has not seen, then propose another."""
        if self._pending is not None:
            losses = [node.losses(word.samples, word.labels)
                      for node in (self._pending, self.serving)]  # fmt: skip
            if excess(*losses) <= TOLERANCE:
                self.serving = self._pending
                self.published += 1
        self._pending = self._strategy.update(self.serving, word)
        self.trained += self._pending is not None

    def lost(self) -> None:
        """A word was not accepted."""
        self._strategy.lost()


class Score(NamedTuple):
    """Of a receiver on air: wrong payload bits (runs, words), -1 in pilots; and how it learned."""

    errors: Array
    accepted: float
    published: float
    seconds: float


def linear(samples: Array, classes: Array) -> Node:
    """Least squares on the pilot."""
    empty = {"taps": np.zeros(MEMORY), "noise_var": np.array(1.0)}
    return Taps("bpsk", MEMORY, empty).fitted(samples, classes)


def gaussians(samples: Array, classes: Array) -> Node:
    """Gaussians of classes, begun at least squares so that classes not seen have a mean."""
    start = linear(samples, classes)
    assert isinstance(start, Taps)
    variances = np.full(2**MEMORY, float(start.arrays["noise_var"]))
    empty = ClassGaussians("bpsk", MEMORY, {"mean": start.means, "variance": variances})
    return empty.fitted(samples, classes)


def curved(samples: Array, classes: Array) -> Node:
    """Least squares on the pilot, as a Wiener node without a curve."""
    return Wiener.fresh("bpsk", MEMORY, samples, classes)


def likelihoods(node: Node, samples: Array, metrics: Array) -> None:
    """Write the branch metrics of a word; a table for one word would cost more than it saves."""
    if isinstance(node, Dense):
        node.network(np.ascontiguousarray(samples[:, None]), metrics)
        np.negative(metrics, out=metrics)
    else:
        node.metrics(samples, metrics)


def decided(metrics: Array) -> Array:
    """The likeliest bits (runs, time) for metrics (runs, time, classes)."""
    runs, steps, width = metrics.shape
    start = trellis.start_states("known", 0, 2, MEMORY - 1)
    detector = viterbi.Viterbi(trellis.Metrics.given(width, np.float32), 2, start)
    flat = detector.metrics.flat(metrics)
    (symbols,) = detector.decide(flat, runs, steps, steps, at_start=True)
    return symbols


def received(receiver: Receiver | None, air: Air) -> Score:
    """Run a receiver over the air, word by word; None: one that knows the channel."""
    runs, words, steps = air.samples.shape
    began = time.perf_counter()
    online = []
    if receiver is not None:
        online = [
            Online(receiver, *pair)
            for pair in zip(air.samples[:runs, 0], air.classes[:runs, 0], strict=True)
        ]
    errors = np.full((runs, words), -1)
    accepted = 0
    code = codec()
    metrics = np.empty((runs, steps, 2**MEMORY), np.float32)
    for w in range(words):
        samples = air.samples[:runs, w]
        if receiver is None:
            known = {"taps": air.taps[w], "noise_var": np.array(air.noise_var)}
            straight = samples
            if air.tanh:
                inside = np.clip(samples.astype(np.float64), -1.0 + 1e-7, 1.0 - 1e-7)
                straight = (np.arctanh(inside) / air.tanh).astype(np.float32)
            Taps("bpsk", MEMORY, known).metrics(straight.ravel(), metrics.reshape(-1, 2**MEMORY))
        else:
            for own, one, row in zip(online, samples, metrics, strict=True):
                likelihoods(own.serving, one, row)
        hard = decided(metrics)
        found, corrected = code.decode(np.packbits(hard, axis=1))
        reencoded = np.unpackbits(found, axis=1)
        is_pilot = w % PILOT_EVERY == 0
        good = corrected != FAILED
        if not is_pilot:
            errors[:, w] = (reencoded[:, : 8 * K] != air.bits[:runs, w]).sum(axis=1)
            accepted += int(good.sum())
        difference = (reencoded != hard).mean(axis=1)
        for r, own in enumerate(online):
            if is_pilot:
                own.learn(Labelled(samples[r], air.classes[r, w], True, 0.0))
            elif good[r] and difference[r] <= MOST_DIFFERENCE:
                classes = labels_of(reencoded[r], MEMORY, 2, before=0)
                own.learn(Labelled(samples[r], classes, False, float(difference[r])))
            else:
                own.lost()
    data = runs * (words - len(range(0, words, PILOT_EVERY)))
    published = sum(own.published for own in online) / max(1, sum(own.trained for own in online))
    return Score(errors, accepted / data, published, time.perf_counter() - began)


class Forgetting(Strategy):
    """Least squares over all words, each of which counts `keep` times what the next one counts."""

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._products, self._sums, self._energy, self._count = np.zeros((4, 4)), np.zeros(4), 0, 0

    def update(self, serving: Node, word: Labelled) -> Node | None:
        shifts = word.labels[:, None] >> np.arange(MEMORY)
        rows, samples = 2.0 * (shifts & 1) - 1.0, word.samples.astype(np.float64)
        self._products = self._keep * self._products + rows.T @ rows
        self._sums = self._keep * self._sums + rows.T @ samples
        self._energy = self._keep * self._energy + samples @ samples
        self._count = self._keep * self._count + len(samples)
        taps = np.linalg.solve(self._products, self._sums)
        noise_var = (self._energy - taps @ self._sums) / (self._count - MEMORY)
        arrays = {"taps": taps, "noise_var": np.array(max(noise_var, 1e-9))}
        return Taps("bpsk", MEMORY, arrays)


def trained_network(channel: Mapping[str, Any], snr_db: float, runs: int = 4) -> Dense:
    """ViterbiNet's network, trained on other runs of a channel at the SNR of the test."""
    air = on_air(channel, snr_db, range(TRAINING, TRAINING + runs))
    rng = np.random.default_rng(1)
    node = Dense.fresh("bpsk", MEMORY, rng=rng)
    for rate in (1e-2, 1e-3):
        node = node.descended(
            air.samples.ravel(), air.classes.ravel(), steps=1500, rate=rate, batch=128, rng=rng
        )
    return node


def least_squares() -> list[Receiver]:
    """What the others are compared with: the strongest of these."""
    return [
        Receiver("least squares, last word", linear, Refit),
        Receiver("least squares, last 2 words", linear, lambda: Refit(words=2)),
        Receiver("least squares, forgetting 0.5", linear, lambda: Forgetting(0.5)),
    ]


def slower(network: Dense) -> list[Receiver]:
    """Others that learn; those of dense layers begin with this network, trained on the pilot."""

    def trained(samples: Array, classes: Array) -> Node:
        rng = np.random.default_rng(0)
        return network.descended(samples, classes, steps=200, rate=1e-3, batch=0, rng=rng)

    def dense(name: str, strategy: Callable[[], Strategy]) -> Receiver:
        return Receiver(f"dense, {name}", trained, strategy)

    return [
        Receiver("Wiener, 5 steps", curved, lambda: Continued(steps=5, rate=1e-2)),
        Receiver("Gaussians, last 2 words", gaussians, lambda: Refit(words=2)),
        dense("5 steps", lambda: Continued(steps=5)),
        dense("5 steps, augmented", lambda: Augmented(Continued(steps=5))),
        dense("5 steps, meta", lambda: Meta(steps=5)),
        dense("Bayesian, diagonal",
              lambda: Bayesian(prior=0.03, drift=0.003, covariance="diagonal")),
        dense("200 steps", lambda: Continued(steps=200, batch=64)),
    ]  # fmt: skip


# --- Figures --------------------------------------------------------------------------------------


def interval(learned: Array, other: Array, rng: np.random.Generator) -> tuple[float, float, float]:
    """Ratio of the wrong bits of two receivers on the same words, and its 95 % interval.

    By bootstrap over words, paired.
    """
    data = other >= 0
    pairs = np.stack([learned[data], other[data]], axis=1)
    some = pairs[pairs.any(axis=1)]
    shares = np.full(len(some) + 1, 1.0 / len(pairs))
    shares[-1] = 1.0 - len(some) / len(pairs)
    counts = rng.multinomial(len(pairs), shares, 4000)[:, :-1]
    drawn = counts @ some
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = drawn[:, 0] / drawn[:, 1]
        ratio = pairs[:, 0].sum() / pairs[:, 1].sum()
    low, high = np.quantile(ratios[~np.isnan(ratios)], [0.025, 0.975])
    return float(ratio), float(low), float(high)


def scenarios() -> list[Scenario]:
    """Measured taps where they are here; fading behind an amplifier that saturates."""
    found = []
    files = tuple(str(COST2100 / f"h_{tap}.mat") for tap in range(MEMORY))
    if Path(files[0]).exists():
        found.append(Scenario("COST2100", {"taps_files": files}, {"fading": "cosine"}))
    else:
        print(f"COST2100 is left out: {COST2100} is not here")
    cosine = {"fading": "cosine", "tanh": 0.5}
    accelerating = {"fading": "accelerating", "tanh": 0.5}
    return [
        *found,
        Scenario("tanh, cosine fading", cosine, cosine),
        Scenario("tanh, accelerating fading", accelerating, cosine),
    ]


def table(
    scenario: Scenario, snr_db: float, runs: int, few: int, first_seed: int = 0
) -> dict[str, Any]:
    """Run all receivers on the same air, print a row for each, and return the figures."""
    air = on_air(scenario.channel, snr_db, range(first_seed, first_seed + runs))
    print(f"\n### {scenario.name}, {snr_db:.0f} dB, {runs} runs of {WORDS} words\n")
    print("| receiver | runs | words lost | wrong bits | coded BER | to least squares | "
          "accepted | published | ms/word |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    plain = {one.name: received(one, air) for one in least_squares()}
    strongest = min(plain, key=lambda name: plain[name].errors.clip(0).sum())
    rows = {name: _row(name, score, plain[strongest]) for name, score in plain.items()}
    others: list[Receiver | None] = [Receiver("Wiener, Bayesian", curved, Bayesian), None]
    if few:
        others += slower(trained_network(scenario.training, snr_db))
    for one in others:
        name = "full knowledge" if one is None else one.name
        part = air if others.index(one) < 2 else _first(air, few)
        rows[name] = _row(name, received(one, part), plain[strongest])
    return rows


def _first(air: Air, runs: int) -> Air:
    return air._replace(
        bits=air.bits[:runs], classes=air.classes[:runs], samples=air.samples[:runs]
    )


def _row(name: str, score: Score, baseline: Score) -> dict[str, Any]:
    """The figures of a receiver, which are printed too."""
    wrong = score.errors[score.errors >= 0]
    compared = interval(
        score.errors, baseline.errors[: len(score.errors)], np.random.default_rng(0)
    )
    row = {
        "runs": len(score.errors), "lost": int(np.count_nonzero(wrong)), "bits": int(wrong.sum()),
        "ber": float(wrong.mean()) / (8 * K), "ratio": compared, "accepted": score.accepted,
        "published": score.published, "ms": 1e3 * score.seconds / score.errors.size,
    }  # fmt: skip
    ratio = "{:.2f} ({:.2f} to {:.2f})".format(*compared)
    print(
        f"| {name} | {row['runs']} | {row['lost']} | {row['bits']} | {row['ber']:.2e} | "
        f"{'1, the strongest' if score is baseline else ratio} | {score.accepted:.3f} | "
        f"{score.published:.2f} | {row['ms']:.2f} |",
        flush=True,
    )
    return row


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="2 runs for each table, 1 of slow ones"
    )
    parser.add_argument("--runs", type=int, nargs=3, default=(4, 60, 12), help="at 8, 10, 12 dB")
    parser.add_argument("--few", type=int, default=2, help="runs of receivers that are slow")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    runs, few = ((2, 2, 2), 1) if given.quick else (given.runs, given.few)
    found = {
        f"{scenario.name}, {snr_db:.0f} dB": table(scenario, snr_db, count, few)
        for scenario in scenarios()
        if given.only in scenario.name
        for snr_db, count in zip(SNRS_DB, runs, strict=True)
        if count
    }
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
