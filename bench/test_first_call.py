"""First calls: compilation into an empty cache, and from a full one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bench import first_call


def run(name: str, cache: str) -> dict[str, float]:
    found = subprocess.run(
        [sys.executable, "-m", "bench.first_call", name],
        env={**os.environ, "NUMBA_CACHE_DIR": cache},
        check=True, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    return json.loads(found.stdout)


@pytest.mark.parametrize("name", first_call.CALLS)
def test_first_call(once, add, tmp_path, name):
    cold, warm = once(lambda: [run(name, str(tmp_path)) for _ in range(2)])
    add(
        f"first call, {name}",
        f"{warm['first']:.2f} s",
        f"{cold['first']:.2f} s",
        how=f"second figure: with an empty cache; a call after that {1e3 * warm['again']:.2f} ms, "
        f"imports {warm['imports']:.2f} s",
    )
