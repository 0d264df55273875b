"""Decoders of the convolutional code K = 7, rate 1/2, beside other libraries, on one core."""

from __future__ import annotations

from bench import limit, ours, workloads
from bench.sides import BITS, Bar, Ours, Peer, add_limit, add_ratio, contest, gnu_radio

WORDS, LENGTH = 1024, 1024
GNU_RADIO_WORDS, BATCH = 128, 64  # of these words
SHORT = 200  # bits of the word for the pure Python peer

OPERATIONS = 5  # for a state and a bit: 2 additions, minimum, comparison, masked OR
BARS = Bar(4, "400 Mb/s"), Bar(3, "260 Mb/s")


def test_batch_of_words(once, add):
    given, short = workloads.coded(WORDS, LENGTH), workloads.coded(1, SHORT)
    generators = [int(octal, 8) for octal in given.code.generators]

    def some(words: int) -> dict[str, object]:
        return {"soft": given.soft[:words], "generators": generators}

    bits = GNU_RADIO_WORDS * LENGTH
    terminated = gnu_radio(
        "cc_decoder, terminated", "convolutional", bits, {**some(GNU_RADIO_WORDS), "ending": True}
    )
    streaming = gnu_radio(
        "cc_decoder, streaming", "convolutional", bits, {**some(GNU_RADIO_WORDS), "ending": False}
    )
    others = {
        "batch of 64": Peer("sionna", "torch, CPU", "codes.sionna", BATCH * LENGTH, some(BATCH)),
        f"one word of {SHORT}": Peer(
            "scikit-commpy", "pure Python", "codes.commpy", SHORT,
            {"soft": short.soft, "generators": generators},
        ),
    }  # fmt: skip
    forms = {width: Ours(ours.convolutional(given, width), given.bits.size) for width in (8, 16)}
    found = once(contest, list(forms.values()), [terminated, streaming, *others.values()])
    for (width, mine), bar in zip(forms.items(), BARS, strict=True):
        rate = given.error_rate(mine.result)
        assert 1e-4 < rate < 5e-3
        what = f"K = 7, rate 1/2, {WORDS} words of {LENGTH}, {width}-bit metrics"
        for peer in (terminated, streaming):
            how = ""
            if not peer.absent:
                theirs = given.error_rate(peer.result)
                assert theirs < 2 * rate
                how = f"bit errors {rate:.1e}, theirs {theirs:.1e}"
            first = peer is terminated
            title = what if first else "  beside cc_decoder, streaming"
            add_ratio(add, title, mine, peer, found, BITS, bar if first else None, how)
        limit_s = 64 * OPERATIONS * limit.per_number(width)
        how = f"{OPERATIONS} vector operations per state at the rate of multiply-adds"
        add_limit(add, mine, found, BITS, limit_s, how)
    for how, peer in others.items():
        if not peer.absent:
            theirs = (short if peer.units == SHORT else given).error_rate(peer.result)
            assert theirs < 0.02
            how += f"; bit errors {theirs:.1e}"
        add_ratio(add, f"  8 bits beside {peer.name}", forms[8], peer, found, BITS, None, how)
