"""The same results as markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures.channels import CHANNELS
from bench.figures.detectors import DETECTORS

KNOWLEDGE = {"perfect": "same channel", "uncertain": "varying taps"}


#: SNRs of the short table.
SHORT = {
    "gaussian": (2, 6, 10), "poisson": (19, 25, 31), "tanh": (2, 6, 10), "quantised": (2, 6, 10)
}  # fmt: skip


def table(results: Mapping[str, Any], snrs: Mapping[str, Sequence[int]] | None = None) -> str:
    """Error rates of all detectors on all channels; `snrs` of which, None: all."""
    names = [name for name in DETECTORS if _anywhere(results, name)]
    heads = ["channel", "labels from", "SNR [dB]", *(DETECTORS[name].title for name in names)]
    rows = [heads, ["---", "---", *["---:"] * (1 + len(names))]]
    for channel, kinds in results["channels"].items():
        for knowledge, by_snr in kinds.items():
            for snr, found in by_snr.items():
                if snrs is not None and int(snr) not in snrs[channel]:
                    continue
                cells = [_cell(found.get(name)) for name in names]
                rows.append([CHANNELS[channel].title, KNOWLEDGE[knowledge], snr, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _anywhere(results: Mapping[str, Any], name: str) -> bool:
    return any(
        name in found
        for kinds in results["channels"].values()
        for by_snr in kinds.values()
        for found in by_snr.values()
    )


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    text = rate_text(found["comparable_rate"])
    if found["comparable_rate"] != found["symbol_error_rate"]:
        text = "~" + text
    return f"**{text}**" if found.get("best") else text


def rate_text(rate: float) -> str:
    """Two digits: 0.16, 0.0042, 4.1e-4."""
    return f"{rate:.2g}" if rate >= 1e-3 or rate == 0.0 else f"{rate:.1e}".replace("e-0", "e-")


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """For each channel, at which SNRs simple and learned detectors have the fewest errors."""
    lines = []
    for channel, kinds in results["channels"].items():
        for knowledge, by_snr in kinds.items():
            won: dict[str, list[str]] = {"simple": [], "learned": [], "both": []}
            for snr, found in by_snr.items():
                groups = {DETECTORS[n].group for n, one in found.items() if one.get("best")}
                won["both" if len(groups) > 1 else groups.pop()].append(snr)
            told = [
                f"{what} at {', '.join(where)} dB"
                for what, where in (
                    ("simple ones win", won["simple"]), ("learned ones win", won["learned"]),
                    ("no significant difference", won["both"]),
                ) if where
            ]  # fmt: skip
            lines.append(f"{CHANNELS[channel].title}, {KNOWLEDGE[knowledge]}: {'; '.join(told)}")
    return lines


def bars(found: Sequence[Mapping[str, Any]]) -> str:
    """What is asked of the learned factor graph, and what came out."""
    rows = ["| bar | measured | 95 % interval | at most | met |", "|---|---:|---:|---:|---|"]
    for bar in found:
        value, low, high = bar["ratio"]
        met = "yes" if high <= bar["at_most"] else ("no" if low > bar["at_most"] else "unclear")
        rows.append(
            f"| {bar['what']} | {value:.3f} | {low:.3f} ... {high:.3f} | {bar['at_most']} | {met} |"
        )
    return "\n".join(rows)
