import importlib
import shutil
import sys
from pathlib import Path

import pytest

from blocks import kernels

USER = """
from lazy_kernels import other
from lazy_kernels.other import value
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The import of kernels under another name, with a module `user` that needs an `other`."""
    folder = tmp_path / "lazy_kernels"
    folder.mkdir()
    shutil.copy(Path(kernels.__file__), folder)
    (folder / "user.py").write_text(USER)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.startswith("lazy_kernels")]:
        del sys.modules[name]


def test_a_module_runs_at_its_first_use_and_once(package):
    (package / "other.py").write_text("import lazy_kernels\nlazy_kernels.runs.append(1)\nvalue = 1")
    lazy_kernels = importlib.import_module("lazy_kernels")
    lazy_kernels.runs = []
    other = lazy_kernels.other
    assert lazy_kernels.runs == []
    assert other.value == 1
    assert lazy_kernels.user.value == 1
    assert lazy_kernels.runs == [1]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, MemoryError, ImportError])
def test_what_is_raised_while_a_module_runs_comes_through_and_it_may_be_tried_again(
    package, raised
):
    (package / "other.py").write_text(
        f"import lazy_kernels\nif not lazy_kernels.ready:\n    raise {raised.__name__}('cut')\n"
        "value = 1"
    )
    lazy_kernels = importlib.import_module("lazy_kernels")
    lazy_kernels.ready = False
    for _ in range(2):
        with pytest.raises(raised, match="cut"):
            _ = lazy_kernels.user.value
    lazy_kernels.ready = True
    assert lazy_kernels.user.value == lazy_kernels.other.value == 1


def test_a_missing_attribute_in_a_module_is_named(package):
    (package / "other.py").write_text("import math\nvalue = math.nothing")
    user = importlib.import_module("lazy_kernels").user
    with pytest.raises(ImportError, match=r"lazy_kernels\.other: module 'math' has no attribute"):
        _ = user.value
