"""Error rates of both trellis detectors beside exact MAP, paired with a plain BCJR.

    python -m bench.exact_map                                  # 20 x 1e5 symbols per SNR
    python -m bench.exact_map --symbols 20000 --snr 4 8        # shorter
    python -m bench.exact_map --each                           # every decay on its own

Channels: taps exp(-decay l), l = 0 ... 3, decay = 0.1, 0.2 ... 2.0, BPSK, SNR = 1 / noise variance
with the taps as they are (the set-up of ViterbiNet, IEEE TWC 2020), and Proakis C. The same samples
go to the detectors, as one stream and cut into words (each with silence before it), and to the
slow reference in tests/references.py.

Intervals are 95 %. Errors come in bursts, so they are taken over means of batches of 500 symbols of
a stream (bursts are far shorter) or over words; differences are taken batch by batch. "exact" is
the mean of the exact probability of error that the reference gives on these very samples.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from blocks.detector.sum_product import SumProduct
from blocks.detector.viterbi import Viterbi
from blocks.kernels.trellis import ALPHABETS
from pipeline.instance import drive
from tests import references

Array = np.ndarray[Any, Any]

DECAYS = np.arange(1, 21) / 10
#: Exact MAP, mean over the 20 decays; 20 x 1e5 symbols, so 3 % off at 8 dB, 5 % at 10 dB.
PRINTED = {-6: 0.2962, -4: 0.2553, -2: 0.2083, 0: 0.1570, 2: 0.1040, 4: 0.05414, 6: 0.01946,
           8: 4.155e-3, 10: 4.11e-4}  # fmt: skip
BATCH = 500

PROAKIS_C = (0.227, 0.460, 0.688, 0.460, 0.227)
#: Viterbi, printed: lag 5L, continuous, and frames of 100 symbols each started afresh.
PRINTED_C = {12: (0.02654, 0.02625, 0.0325), 16: (0.00032, 0.000373, 0.001878)}

#: Viterbi by lag, printed: path metrics are carried on without end, each step is decided by itself.
LAGS = (4, 8, 12, 16, 20, 24, 60)
PRINTED_LAGS = {12: (0.05407, 0.03303, 0.02811, 0.02678, 0.02654, 0.02646, 0.02645),
                16: (0.00386, 0.00110, 0.00047, 0.00034, 0.00032, 0.00032, 0.00032)}  # fmt: skip


def mean_and_interval(values: Array) -> tuple[float, float]:
    """Mean over channels of the mean over batches, and half its 95 % interval; (channel, batch)."""
    channels, batches = values.shape
    variance = values.var(axis=1, ddof=1) / batches
    return float(values.mean()), float(1.96 * np.sqrt(variance.sum()) / channels)


def text(values: Array) -> str:
    """Mean and interval of (channel, batch)."""
    mean, half = mean_and_interval(values)
    return f"{mean:.3e} +-{half:.1e}"


def received(taps: Array, snr_db: float, shape: tuple[int, int], rng: Any) -> tuple[Array, Array]:
    """Words in rows, each after silence: what was sent, and float32 samples."""
    sent = rng.choice(np.array([-1, 1], np.int8), shape)
    samples = rng.standard_normal(shape) * 10.0 ** (-snr_db / 20)
    for lag, tap in enumerate(taps):
        samples[:, lag:] += tap * sent[:, : shape[1] - lag]
    return sent, samples.astype(np.float32)


def detect(block: Any, samples: Array) -> Array:
    """Decided symbols."""
    return np.concatenate([fields["symbols"] for fields in drive(block, [{"samples": samples}])])


def exponential(snr_db: int, symbols: int, word: int, seed: int, each: bool) -> None:
    """One SNR: streams, then words."""
    rng = np.random.default_rng([seed, snr_db + 100])
    taps = np.exp(-DECAYS[:, None] * np.arange(4))
    noise_var = 10.0 ** (-snr_db / 10)

    def compare(sent: Array, samples: Array, per_word: int) -> None:
        """Rows of `sent`: (channel, symbols); a row is one stream, or words of `per_word`."""
        channels, count = sent.shape
        found = {"sum-product": np.empty_like(sent), "viterbi": np.empty_like(sent)}
        for row in range(channels):
            shaped = samples[row].reshape(-1, per_word) if per_word else samples[row]
            known = {"taps": tuple(taps[row].tolist()), "snr_db": float(snr_db)}
            found["sum-product"][row] = detect(SumProduct(**known), shaped).reshape(-1)
            found["viterbi"][row] = detect(Viterbi(**known), shaped).reshape(-1)
        if per_word:
            tall = np.repeat(taps, count // per_word, axis=0)
            inputs = samples.reshape(-1, per_word)
        else:
            tall, inputs = taps, samples
        posterior = references.bcjr(
            inputs, tall, ALPHABETS["bpsk"], noise_var, silence=True
        ).reshape(channels, count, 2)
        best = np.where(posterior[:, :, 1] > 0.5, 1, -1)

        def batched(values: Array) -> Array:
            return values.reshape(channels, -1, per_word or BATCH).mean(axis=2)

        wrong = {name: batched(symbols != sent) for name, symbols in found.items()}
        reference = batched(best != sent)
        exact = batched(posterior.min(axis=2))
        what = f"words of {per_word}" if per_word else "streams"
        print(f"{snr_db:+3d} dB, {what}: {channels} x {count} symbols")
        printed = PRINTED.get(snr_db)
        if printed and not per_word:
            print(f"  printed MAP row   {printed:.3e}")
        print(f"  exact             {text(exact)}")
        print(f"  plain BCJR        {text(reference)}")
        for name, rates in wrong.items():
            differ = int((found[name] != best).sum())
            print(
                f"  {name:<16}  {text(rates)}   minus BCJR {text(rates - reference)}   "
                f"minus exact {text(rates - exact)}   {differ} decisions differ from BCJR"
            )
        if each and not per_word:
            print("  decay      exact  BCJR wrong  SP wrong  differ   Viterbi wrong  minus BCJR")
            for row, decay in enumerate(DECAYS):
                one = slice(row, row + 1)
                print(
                    f"  {decay:5.1f}  {exact[one].mean():.3e}  {(best[row] != sent[row]).sum():10d}"
                    f"  {(found['sum-product'][row] != sent[row]).sum():8d}"
                    f"  {(found['sum-product'][row] != best[row]).sum():6d}"
                    f"  {(found['viterbi'][row] != sent[row]).sum():14d}"
                    f"  {text((wrong['viterbi'] - reference)[one])}"
                )
        if per_word:
            places = [0, 1, 2, 3, per_word // 2, *range(per_word - 4, per_word)]
            print("  position         " + "".join(f"{place:>10d}" for place in places))
            by_place = {"exact": posterior.min(axis=2), "plain BCJR": best != sent}
            by_place |= {name: symbols != sent for name, symbols in found.items()}
            for name, values in by_place.items():
                rates = values.reshape(-1, per_word).mean(axis=0)[places]
                print(f"  {name:<16} " + "".join(f"{rate:10.2e}" for rate in rates))

    rows = [received(row, snr_db, (1, symbols), rng) for row in taps]
    compare(np.concatenate([r[0] for r in rows]), np.concatenate([r[1] for r in rows]), 0)
    rows = [received(row, snr_db, (symbols // word, word), rng) for row in taps]
    compare(np.stack([r[0].ravel() for r in rows]), np.stack([r[1].ravel() for r in rows]), word)


def proakis_c(snr_db: int, symbols: int, seed: int) -> None:
    """Proakis C: the lag, and what starting afresh at every frame costs."""
    rng = np.random.default_rng([seed, snr_db, 3])
    sent, samples = received(np.array(PROAKIS_C), snr_db, (1, symbols), rng)
    sent, samples = sent[0], samples[0]
    known = {"taps": PROAKIS_C}
    noisy = {**known, "snr_db": float(snr_db)}
    frames = [{"samples": part} for part in samples.reshape(-1, 100)]
    cut = np.concatenate([fields["symbols"] for fields in drive(Viterbi(**known), frames)])
    uncut = detect(Viterbi(**known), samples)
    fresh = Viterbi(**known, start_state="unknown")
    lagged_soft, whole_soft = (
        drive(SumProduct(**noisy), [{"samples": part}])[0] for part in (samples, samples[None])
    )
    moved = np.abs((lagged_soft["posterior"] - whole_soft["posterior"][0])[:, 1::2].sum(axis=1))
    rows = {
        "viterbi, lag 5L": uncut,
        "viterbi, lag 5L, frames of 100": cut,
        "viterbi, full traceback": detect(Viterbi(**known), samples[None])[0],
        "viterbi, started afresh every 100": detect(fresh, samples.reshape(-1, 100)).reshape(-1),
        "sum-product, lag 5L": lagged_soft["symbols"],
        "sum-product, whole record": whole_soft["symbols"][0],
    }
    lagged, whole, afresh = PRINTED_C.get(snr_db, (float("nan"),) * 3)
    printed = dict(zip(rows, (lagged, lagged, whole, afresh), strict=False))
    print(f"Proakis C, {snr_db} dB, {symbols} symbols; frames of 100 differ from the uncut stream "
          f"in {int((cut != uncut).sum())} decisions")  # fmt: skip
    for name, found in rows.items():
        rate = text((found != sent).reshape(1, -1, BATCH).mean(axis=2))
        beside = f"   printed {printed[name]:.3e}" if name in printed else ""
        print(f"  {name:<36} {rate}{beside}")
    print("  viterbi by lag       " + "".join(f"{lag:11d}" for lag in LAGS))
    full = rows["viterbi, full traceback"]
    by_window = {
        window: [detect(Viterbi(**known, window=window, lag=lag), samples) for lag in LAGS]
        for window in (1, 128)
    }
    for window, decided in by_window.items():
        rates = "".join(f"{np.mean(symbols != sent):11.2e}" for symbols in decided)
        print(f"    windows of {window:>3}     {rates}")
        apart = "".join(f"{np.mean(symbols != full):11.1e}" for symbols in decided)
        print(f"      unlike the full  {apart}")
    printed_rates = "".join(f"{rate:11.2e}" for rate in PRINTED_LAGS.get(snr_db, ()))
    print(f"    printed            {printed_rates}")
    print(f"  posterior of +1, lag 5L against whole record: mean difference {moved.mean():.1e}, "
          f"above 0.01 in {np.mean(moved > 0.01):.1e}, at most {moved.max():.2f}")  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=100_000, help="per decay and SNR")
    parser.add_argument("--snr", type=int, nargs="*", default=[0, 4, 6, 8], help="in dB")
    parser.add_argument("--word", type=int, default=100, help="symbols per word")
    parser.add_argument("--proakis", type=int, default=1_000_000, help="symbols; 0: leave out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", action="store_true", help="print every decay")
    options = parser.parse_args()
    whole = options.symbols // BATCH * BATCH
    for snr_db in options.snr:
        exponential(snr_db, whole, options.word, options.seed, options.each)
    if options.proakis:
        for snr_db in PRINTED_C:
            proakis_c(snr_db, options.proakis // BATCH * BATCH, options.seed)


if __name__ == "__main__":
    main()
