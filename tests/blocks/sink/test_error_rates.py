import numpy as np

from blocks.sink.error_rate import ErrorRate
from blocks.sink.error_rates import ErrorRates
from pipeline.frame import FrameInfo

RNG = np.random.default_rng(1)
SENT = RNG.choice(np.array([-1, 1], np.int8), (200, 30))


def wrong(share):
    return np.where(RNG.random(SENT.shape) < share, -SENT, SENT)


def counted(block, frames):
    block.start()
    for seq, frame in enumerate(frames):
        marks = {"detector.version": seq // 3, "other.version": seq // 2}
        block.process(**frame, info=FrameInfo(seq=seq, marks=marks))
    return block


def test_each_receiver_is_counted_as_by_the_sink_for_one(tmp_path):
    fields = {"symbols": wrong(0.1), "least_squares": wrong(0.2), "full_knowledge": wrong(0.05)}
    pilot = np.arange(200) % 10 == 0
    cuts = [slice(k, k + 20) for k in range(0, 200, 20)]
    frames = [
        {"sent": SENT[cut], "pilot": pilot[cut], **{n: a[cut] for n, a in fields.items()}}
        for cut in cuts
    ]
    block = counted(ErrorRates(marked="detector", skip=90), frames)
    report = block.report(tmp_path)
    for name, symbols in fields.items():
        alone = [{"sent": SENT[c], "symbols": symbols[c], "pilot": pilot[c]} for c in cuts]
        expected = counted(ErrorRate(skip=90), alone).report(None)
        prefix = "" if name == "symbols" else f"{name}_"
        for key in ("symbol_error_rate", "errors", "ci95"):
            assert report[prefix + key] == expected[key]
    assert {change[2] for change in report["version_changes"]} == {"detector"}
    assert len(report["version_changes"]) == 3
    assert (tmp_path / report["picture"]).stat().st_size > 10_000


def test_receivers_that_are_not_there_are_not_told_of():
    report = counted(ErrorRates(), [{"sent": SENT, "symbols": wrong(0.1)}]).report(None)
    assert "least_squares_errors" not in report
    assert report["symbols"] == SENT.size
