"""What some tests need beside this repository; where it is missing, they say how to get it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from numba.core import config

#: Recordings of others, beside the checkout; from github.com:
DATA = Path(__file__).parents[2] / "shared" / "data"
ORIGINS = {
    "modes/modes1.bin": "antirez/dump1090, testfiles",
    "modes/test_1641427457780.iq": "rsadsb/dump1090_rs, test_iq",
    "modes/pymodes_sample_data_adsb.csv": "junzis/pyModeS, tests/data/sample_data_adsb.csv",
    "tracks/switzerland.json.gz": "xoolive/traffic, src/traffic/data/samples/collections",
    **dict.fromkeys(
        (f"cost2100/h_{tap}.mat" for tap in range(4)),
        "tomerraviv95/MetaViterbiNet, resources/cost2100_channel",
    ),
    **{
        f"hdlc/{name}.wav": "daniestevez/satellite-recordings"
        for name in ("tigrisat", "koyo", "us04", "us01", "aalto1", "swiatowid-ax25")
    },
}

#: Marks tests that take minutes without compilation, or look at what it does.
compiled = pytest.mark.skipif(
    bool(config.DISABLE_JIT), reason="needs compiled kernels; unset NUMBA_DISABLE_JIT"
)


def recording(name: str) -> Path:
    """The path of a recording; skips the test where it is not here."""
    path = DATA / name
    if not path.exists():
        origin = f"github.com/{ORIGINS[name]}" if name in ORIGINS else "the shared data"
        pytest.skip(f"needs {path}, which is in {origin}")
    return path


def package(name: str, extra: str = "dev") -> Any:
    """The module of this name; skips the test where its package is not installed."""
    reason = f"needs {name.split('.')[0]}: pip install 'kalvit[{extra}]'"
    return pytest.importorskip(name, reason=reason, exc_type=ImportError)
