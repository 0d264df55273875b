import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blocks.kernels import caching

HERE = Path(caching.__file__).parent
USES = """
import numpy as np
from numba import float64, types
from blocks.kernels.caching import cfunc, njit
from blocks.kernels.indirect import address_of, call_noise
from blocks.kernels.other import called, traced
from blocks.kernels.unrolled import unrolled

formula = unrolled(traced)

@njit(cache=True)
def kernel(x):
    return formula(x), called(x)

def noise(interval, parameters, out):
    out[0, 0] = called(interval)

@njit(cache=True)
def outer(address, parameters, out):
    call_noise(address, 1.0, parameters, out)

@njit(cache=True)
def beyond(array):
    return array[2]

out = np.zeros((1, 1))
outer(address_of(noise, "noise"), np.zeros(1), out)
print(*kernel(1.0), out[0, 0])
try:
    beyond(np.zeros(3)[:2])
    print("unchecked")
except IndexError:
    print("checked")
"""
OTHER = """
from blocks.kernels.caching import njit

def traced(x):
    return x * {factor}

@njit(cache=True)
def called(x):
    return x * {factor}
"""


def test_an_edit_of_another_file_and_bounds_checks_make_kept_code_stale(tmp_path):
    folder = tmp_path / "blocks" / "kernels"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder.parent / "__init__.py").touch()
    for name in ("caching.py", "traced.py", "unrolled.py", "indirect.py"):
        shutil.copy(HERE / name, folder)
    (folder / "uses.py").write_text(USES)

    def run(**more):
        return subprocess.run(
            [sys.executable, "-c", "import blocks.kernels.uses"], cwd=tmp_path, check=True,
            capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path), **more},
        ).stdout.split()  # fmt: skip

    for factor in ("2.0", "3.0"):
        (folder / "other.py").write_text(OTHER.format(factor=factor))
        assert run()[:3] == [factor] * 3
    # numba itself does not tell code with checks from code without
    without = run(NUMBA_BOUNDSCHECK="0", NUMBA_DISABLE_JIT="0")
    checked = run(NUMBA_BOUNDSCHECK="1", NUMBA_DISABLE_JIT="0")
    assert (without[3], checked[3]) == ("unchecked", "checked")


@pytest.mark.parametrize("path", sorted(HERE.glob("*.py")), ids=lambda path: path.name)
def test_every_kernel_is_kept_with_the_digest_of_all(path):
    if path.name != "caching.py":
        text = path.read_text()
        assert not re.search(
            r"from numba import .*(jit|cfunc|vectorize)|numba\.\w*(jit|cfunc)", text
        ), f"{path.name}: take njit and cfunc from blocks.kernels.caching"
