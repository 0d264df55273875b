"""Decoders of the convolutional code K = 7, rate 1/2, beside other libraries, on one core."""

from __future__ import annotations

from bench import limit, ours, workloads
from bench.sides import BITS, Bar, Ours, Peer, add_limit, add_ratio, contest, gnu_radio

WORDS, LENGTH = 1024, 1024
GNU_RADIO_WORDS, BATCH = 128, 64  # of these words
SHORT = 200  # bits of the word for the pure Python peer

OPERATIONS = 5  # for a state and a bit: 2 additions, minimum, comparison, masked OR
BARS = Bar(4, "400 Mb/s"), Bar(3, "260 Mb/s")


def errors(given, decided, peer) -> str:
    """Bit error rates on the same words, as text; raises where they are not of such a decoder."""
    rate = given.error_rate(decided)
    assert rate < 5e-3
    if peer.absent:
        return ""
    rate, theirs = given.error_rate(decided[: len(peer.result)]), given.error_rate(peer.result)
    assert theirs < 2.0 * rate + 1e-4, f"{peer.name}: {theirs} bit errors, ours {rate}"
    return f"bit errors {rate:.1e}, theirs {theirs:.1e}"


def test_batch_of_words(once, add):
    given, short = workloads.coded(WORDS, LENGTH), workloads.coded(1, SHORT)
    generators = [int(octal, 8) for octal in given.code.generators]
    some = {"soft": given.soft[:GNU_RADIO_WORDS], "generators": generators}
    gnu_radios = [
        gnu_radio(
            f"cc_decoder, {form}", "convolutional", GNU_RADIO_WORDS * LENGTH,
            {**some, "ending": form == "terminated"},
        )
        for form in ("terminated", "streaming")
    ]  # fmt: skip
    others = [
        Peer(
            "sionna", f"torch on the CPU, batch of {BATCH}", "codes.sionna", BATCH * LENGTH,
            {**some, "soft": given.soft[:BATCH]},
        ),
        Peer(
            "scikit-commpy", f"pure Python, a word of {SHORT}", "codes.commpy", SHORT,
            {**some, "soft": short.soft},
        ),
    ]  # fmt: skip
    forms = {width: Ours(ours.convolutional(given, width), given.bits.size) for width in (8, 16)}
    found = once(contest, list(forms.values()), [*gnu_radios, *others])
    for (width, mine), bar in zip(forms.items(), BARS, strict=True):
        what = f"K = 7, rate 1/2, {WORDS} words of {LENGTH}, {width}-bit metrics"
        for peer, title in zip(gnu_radios, (what, "  beside it, streaming"), strict=True):
            how = errors(given, mine.result, peer)
            add_ratio(add, title, mine, peer, found, BITS, bar if title == what else None, how)
        limit_s = 64 * OPERATIONS * limit.per_number(width)
        how = f"{OPERATIONS} vector operations per state at the rate of multiply-adds"
        add_limit(add, mine, found, BITS, limit_s, how)
    for peer, coded, decided in zip(
        others, (given, short), (forms[8].result, ours.convolutional(short, 8)()), strict=True
    ):
        how = errors(coded, decided, peer)
        add_ratio(add, f"  8 bits beside {peer.name}", forms[8], peer, found, BITS, None, how)
