"""Counts Mode S messages that were sent and not found, and found but not sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int16, UInt8

from blocks.kernels import mode_s
from blocks.sink.error_rate import wilson
from pipeline.block import Sink, param
from pipeline.errors import RunError
from pipeline.frame import Array, FrameInfo, Scalar, StreamInfo

NEAR = 3.0  # samples that a message may be found away from its place
KEPT = 2000  # newest messages sent that may still be found, or overlapped
LOWEST_DB, HIGHEST_DB = -20, 60  # of the counts by signal-to-noise ratio, in steps of 1 dB
PREAMBLE_S, BIT_S = 8e-6, 1e-6
SENT = np.dtype(
    [("begin", "f8"), ("end", "f8"), ("bin", "i8"), ("overlapped", "?"), ("found", "?"),
     ("message", "u1", 14)]
)  # fmt: skip


class MessageErrors(Sink, name="sink.message_errors"):
    """How many of the messages sent were found, bit for bit and at their place.

    message_error_rate is the share of messages sent that were not found, in all and of each
    downlink format; clear_error_rate of those on which no other message lay, overlapped_error_rate
    of the rest. by_snr_db has the clear ones: [least ratio in dB of a step of 1 dB, sent, not
    found]. false_messages were found but not sent, or twice; of false_strict_messages the decoder
    had no doubt. Intervals are 95 %, for independent errors. The picture shows error rates against
    the signal-to-noise ratio that was sent.

    sent_messages, messages         (sent_message, 14), (message, 14)  uint8
    sent_bits, sent_sample, sent_snr_db, message_sample, message_strict  of each

    Raises RunError where the sample rate is not known.
    """

    rate_hz: float = param(
        default=0.0, at_least=0.0, unit="Hz", doc="samples per second; 0: as the stream says"
    )

    def start(self) -> None:
        #: By overlapped or not, format, ratio: sent, and found.
        self._counts = np.zeros((2, mode_s.COMM_D + 1, HIGHEST_DB - LOWEST_DB, 2), np.int64)
        self._false = np.zeros(3, np.int64)  # found, of those false, of those strict
        self._rates: dict[str, float] = {}
        self._recent: dict[str, Array] = {}  # SENT, of each stream

    def open(self, stream: str, info: StreamInfo) -> None:
        self._rates[stream] = self.rate_hz or info.rate_hz

    def process(
        self,
        sent_messages: UInt8[Array, "sent_message byte"],
        sent_bits: Int16[Array, "sent_message"],
        sent_sample: Float64[Array, "sent_message"],
        sent_snr_db: Float32[Array, "sent_message"],
        messages: UInt8[Array, "message byte"],
        message_sample: Float64[Array, "message"],
        message_strict: UInt8[Array, "message"],
        info: FrameInfo = FrameInfo(),
    ) -> None:
        rate_hz = self._rates.get(info.stream, self.rate_hz)
        if not rate_hz:
            raise RunError(
                f"{self.name}: the sample rate of stream {info.stream} is not known; set rate_hz"
            )
        new = np.zeros(len(sent_bits), SENT)
        new["begin"], new["message"] = sent_sample, sent_messages
        new["end"] = sent_sample + (PREAMBLE_S + sent_bits * BIT_S) * rate_hz
        place = np.floor(sent_snr_db.astype(float)).clip(LOWEST_DB, HIGHEST_DB - 1)
        new["bin"] = place.astype(int) - LOWEST_DB
        old = self._recent.get(info.stream, np.zeros(0, SENT))
        recent = np.concatenate([old, new])
        for row in range(len(old), len(recent)):  # they come in the order of their ends
            others = recent[max(row - KEPT // 2, 0) : row]
            over = others["end"] > recent["begin"][row]
            others["overlapped"] |= over
            recent["overlapped"][row] = over.any()
        for message, sample, strict in zip(messages, message_sample, message_strict, strict=True):
            near = np.abs(recent["begin"] - sample) < NEAR
            same = np.flatnonzero(near & ~recent["found"])
            same = same[(recent["message"][same] == message).all(axis=1)]
            recent["found"][same[:1]] = True
            self._false += (1, not same.size, not same.size and bool(strict))
        settled = max(len(recent) - KEPT, 0)
        self._add(recent[:settled], self._counts)
        self._recent[info.stream] = recent[settled:]

    @staticmethod
    def _add(sent: Array, counts: Array) -> None:
        """Count messages that are settled."""
        formats = np.minimum(sent["message"][:, 0] >> 3, mode_s.COMM_D)
        where = sent["overlapped"].astype(int), formats, sent["bin"]
        np.add.at(counts[..., 0], where, 1)
        np.add.at(counts[..., 1], where, sent["found"])

    def _total(self) -> Array:
        """Counts with those that are not settled yet."""
        counts = self._counts.copy()
        for recent in self._recent.values():
            self._add(recent, counts)
        return counts

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        counts = self._total()
        all_, false, strict = self._false.tolist()
        found: dict[str, Any] = {"sent": int(counts[..., 0].sum())}
        found |= _rate("message_error_rate", counts, "ci95")
        found |= _rate("clear_error_rate", counts[0], "clear_ci95")
        found |= _rate("overlapped_error_rate", counts[1], "overlapped_ci95")
        found |= {
            "messages": all_,
            "false_messages": false,
            "false_ci95": list(wilson(false, all_)),
            "false_strict_messages": strict,
        }
        for kind in np.flatnonzero(counts[..., 0].sum(axis=(0, 2))).tolist():
            found[f"df{kind}_sent"] = int(counts[:, kind, :, 0].sum())
            found |= _rate(f"df{kind}_error_rate", counts[:, kind], f"df{kind}_ci95")
        clear = counts[0].sum(axis=0)
        found["by_snr_db"] = [
            [LOWEST_DB + step, int(clear[step, 0]), int(clear[step, 0] - clear[step, 1])]
            for step in np.flatnonzero(clear[:, 0]).tolist()
        ]
        if folder is not None and clear[:, 0].any():
            found["picture"] = "message_errors.png"
            self._draw(counts, folder / found["picture"])
        return found

    def state(self) -> Mapping[str, Array | Scalar]:
        names = sorted(self._recent)
        found: dict[str, Array | Scalar] = {
            "counts": self._counts.copy(),
            "false": self._false.copy(),
            "notes": json.dumps({"streams": names, "rates": self._rates}),
        }
        for number, name in enumerate(names):
            found[f"recent_{number}"] = self._recent[name].view(np.uint8).reshape(-1, SENT.itemsize)
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        notes = json.loads(state["notes"])
        self._counts, self._false = np.array(state["counts"]), np.array(state["false"])
        self._rates = dict(notes["rates"])
        self._recent = {
            name: np.array(state[f"recent_{number}"]).reshape(-1).view(SENT)
            for number, name in enumerate(notes["streams"])
        }

    def _draw(self, counts: Array, path: Path) -> None:
        """Leave a picture of the error rates against the signal-to-noise ratio."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.0, 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for part, label in enumerate(("clear", "overlapped by another message")):
            steps = counts[part].sum(axis=0)
            at = np.flatnonzero(steps[:, 0])
            if not at.size:
                continue
            sent, lost = steps[at, 0], steps[at, 0] - steps[at, 1]
            rate = lost / sent
            band = np.array([wilson(*pair) for pair in np.transpose([lost, sent]).tolist()])
            axes.errorbar(
                at + LOWEST_DB + 0.5, rate, np.abs(band.T - rate), fmt="o-", markersize=3.0,
                linewidth=1.0, capsize=2.0, label=label,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_ylim(1e-3, 1.1)
        axes.set_xlabel("signal-to-noise ratio of the message [dB]")
        axes.set_ylabel("share of messages not found, with 95 % intervals")
        axes.set_title(f"{int(counts[..., 0].sum()):,} messages sent", fontsize=9)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
        figure.savefig(path, dpi=130)


def _rate(name: str, counts: Array, band: str) -> dict[str, Any]:
    """Share not found and its interval, of counts (..., 2); nothing where none was sent."""
    sent, found = counts.reshape(-1, 2).sum(axis=0).tolist()
    return {name: (sent - found) / sent, band: list(wilson(sent - found, sent))} if sent else {}
