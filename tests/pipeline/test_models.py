"""Models on disk: whole or not there, and what was changed is never loaded."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import RunError, WeightsError
from pipeline.models import Models
from pipeline.weights import Weights


def weights(gain: float = 3.0, **changed) -> Weights:
    given = {
        "name": "gain", "version": 1, "hyper": {"n_states": 16}, "labels": "pilots",
        "arrays": {"gain": np.array(gain), "bias": np.ones((2, 3), np.float32)},
    }  # fmt: skip
    return Weights(**{**given, **changed})


@pytest.fixture
def models(tmp_path) -> Models:
    return Models(tmp_path / "models", [])


def place(models: Models, version: int, file: str) -> Path:
    return models.folder / "gain" / str(version) / file


def rewrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def problems(models: Models, model: str = "") -> dict[str, str]:
    return {name: wrong for name, wrong in models.verify(model) if wrong}


# what comes back


def test_what_was_added_comes_back_with_its_digest_and_its_own_number(models):
    first = models.add(weights(), scores={"ser": 0.25}, training={"seed": 7}, command="make it")
    second = models.add(weights(4.0, version=40, parent=1))
    assert (first.version, second.version) == (1, 2)
    found = models.load("gain@2")
    assert found.digest == weights(4.0).digest
    assert (found.version, found.parent, found.labels) == (2, 1, "pilots")
    assert found.hyper == {"n_states": 16}
    np.testing.assert_array_equal(found.arrays["bias"], np.ones((2, 3), np.float32))
    card = models.card("gain@1")
    assert (card.scores, card.training, card.command) == ({"ser": 0.25}, {"seed": 7}, "make it")
    assert card.arrays == {"bias": "float32[2, 3]", "gain": "float64[]"}
    assert models.versions("gain") == [1, 2]
    assert models.names() == ["gain"]
    assert problems(models) == {}


def test_the_arrays_are_a_safetensors_file_that_any_reader_opens(models):
    models.add(weights())
    data = place(models, 1, "weights.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")  # as the format's description has it
    header = json.loads(data[8 : 8 + length])
    first, last = header["bias"]["data_offsets"]
    assert (header["bias"]["dtype"], header["bias"]["shape"]) == ("F32", [2, 3])
    assert data[8 + length + first : 8 + length + last] == np.ones(6, "<f4").tobytes()


def test_reading_a_model_imports_no_torch(models):
    models.add(weights())
    program = (
        "import sys; from pathlib import Path; from pipeline.models import Models;"
        f"print(Models(Path({str(models.folder)!r}), []).load('gain@1').arrays['gain']);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stderr


def test_the_pointer_remembers_what_served_before(models):
    for gain in (1.0, 2.0, 3.0):
        models.add(weights(gain))
    assert models.current("gain") == 0
    for version in (1, 3, 3, 2):
        assert models.promote(f"gain@{version}") == version
    assert models.load("gain").arrays["gain"] == 2.0
    assert [models.rollback("gain"), models.rollback("gain")] == [3, 1]
    assert models.load("gain").version == 1
    with pytest.raises(WeightsError, match=r"no version of 'gain' served before gain@1; promote"):
        models.rollback("gain")


def test_shipped_models_are_read_and_never_written(tmp_path):
    shipped = Models(tmp_path / "shipped", [])
    shipped.add(weights(1.0))
    shipped.promote("gain@1")
    before = sorted(path for path in (tmp_path / "shipped").rglob("*"))
    models = Models(tmp_path / "mine", [tmp_path / "shipped"])
    assert models.load("gain").arrays["gain"] == 1.0
    assert models.add(weights(2.0, parent=1)).version == 2
    models.promote("gain@2")
    assert models.load("gain").arrays["gain"] == 2.0
    assert models.rollback("gain") == 1
    assert models.current("gain") == 1
    assert sorted(path for path in (tmp_path / "shipped").rglob("*")) == before
    assert shipped.current("gain") == 1
    assert problems(models) == {}


def test_the_users_folder_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("KALVIT_MODELS", str(tmp_path / "there"))
    Models().add(weights())
    assert (tmp_path / "there" / "gain" / "1" / "card.json").exists()


# what was changed


@pytest.mark.parametrize("file", ["card.json", "weights.safetensors"])
def test_any_byte_that_was_changed_is_found(models, file):
    models.add(weights())
    path = place(models, 1, file)
    good = path.read_bytes()
    rng = np.random.default_rng(5)
    for at in range(len(good)):
        # a single bit, another byte that is text, and any other byte at all
        for other in (good[at] ^ (1 << at % 8), 0x20 if good[at] != 0x20 else 0x0A,
                      (good[at] + int(rng.integers(1, 256))) % 256):  # fmt: skip
            rewrite(path, good[:at] + bytes([other]) + good[at + 1 :])
            with pytest.raises(WeightsError, match=re.escape(str(path))):
                models.load("gain@1")
    rewrite(path, good)
    assert models.load("gain@1").digest == weights().digest


@pytest.mark.parametrize("file", ["card.json", "weights.safetensors"])
def test_bytes_that_were_cut_or_added_are_found(models, file):
    models.add(weights())
    path = place(models, 1, file)
    good = path.read_bytes()
    for data in (b"", good[:1], good[:8], good[:-1], good[: len(good) // 2], good + b"\n",
                 good + bytes(1 << 20), b"\n" + good, good * 2):  # fmt: skip
        rewrite(path, data)
        with pytest.raises(WeightsError, match=re.escape(str(path))):
            models.load("gain@1")


def test_a_file_of_other_arrays_is_told_by_the_first_that_differs(models):
    models.add(weights())
    models.add(weights(arrays={"gain": np.zeros(2), "bias": np.ones((2, 3), np.float32)}))
    for number, other in ((1, 2), (2, 1)):
        first, second = (place(models, n, "weights.safetensors") for n in (number, other))
        kept = first.read_bytes()
        data = second.read_bytes()
        card = place(models, number, "card.json")
        good_card = card.read_bytes()
        body = good_card.rpartition(b'  "seal"')[0]
        body = body.replace(b'"file_bytes": %d' % len(kept), b'"file_bytes": %d' % len(data))
        rewrite(card, resealed(body))
        rewrite(first, data)
        with pytest.raises(WeightsError, match=r"array 'gain' is float64\[2?\], but its card says"):
            models.load(f"gain@{number}")
        rewrite(first, kept)
        rewrite(card, good_card)
    assert problems(models) == {}


def resealed(body: bytes) -> bytes:
    """A card that someone else made: its checksum is right."""
    from hashlib import sha256

    return body + b'  "seal": "%s"\n}\n' % sha256(body).hexdigest().encode()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (b'"version": 1', b'"version": "1"', "version: .* another release wrote it"),
        (b'"version": 1', b'"version": 2', r"is the card of gain@2, not of gain@1"),
        (b'"name": "gain"', b'"name": "other"', r"is the card of other@1, not of gain@1"),
        (b'"labels": "pilots",\n', b"", "labels: Field required"),
        (b'"labels"', b'"lables"', "another release wrote it"),
        (b'"hyper": {', b'"hyper": {"n_states": 8, "x": ', "is no card"),
        (b'"n_states": 16', b'"n_states": 17', "does not agree with the checksum on its card"),
        (b'"n_states": 16', b'"n": ' + b"[" * 10_000 + b"]" * 10_000, "is no card"),
        (b'"name": "gain"', b'"name": NaN', "name: "),
    ],
)
def test_a_card_that_someone_made_is_read_with_care(models, old, new, text):
    models.add(weights())
    card = place(models, 1, "card.json")
    body = card.read_bytes().rpartition(b'  "seal"')[0]
    assert body.count(old) == 1
    rewrite(card, resealed(body.replace(old, new)))
    with pytest.raises(WeightsError, match=text):
        models.load("gain@1")


def test_a_header_of_any_length_is_refused_before_it_is_read(models):
    models.add(weights())
    path = place(models, 1, "weights.safetensors")
    good = path.read_bytes()
    for length in (300 << 10, 1 << 40, (1 << 64) - 1):
        rewrite(path, length.to_bytes(8, "little") + good[8:])
        with pytest.raises(WeightsError, match=r"its header has \d+ bytes; at most 262144"):
            models.load("gain@1")


# what is missing


def test_what_is_missing_is_named_with_what_to_do(models):
    with pytest.raises(WeightsError, match=r"no model named 'gain'; .* holds none \(KALVIT_MODELS"):
        models.load("gain")
    models.add(weights())
    models.add(weights(2.0, parent=1))
    for asked, text in {
        "gian": "no model named 'gian'; did you mean 'gain'",
        "gain": r"no version of 'gain' is promoted; name one, such as gain@2, or `kalvit models "
                r"promote` it; there are gain@1, gain@2",
        "gain@7": "no model gain@7; there are gain@1, gain@2",
        "gain@x": "'gain@x' names no version; write gain@N",
        "gain@0": "names no version",
        "../gain@1": "no model named '../gain'",
        "": "no model named ''",
    }.items():  # fmt: skip
        with pytest.raises(WeightsError, match=text):
            models.load(asked)
    with pytest.raises(WeightsError, match=r"no model gain@9; there are gain@1, gain@2"):
        models.add(weights(parent=9))
    models.promote("gain@2")
    os.rename(place(models, 1, ""), models.folder / "away")
    assert models.load("gain@2").version == 2  # it serves all the same
    assert problems(models) == {"gain@2": "gain@2 came from gain@1, which is gone; put it back"}
    os.rename(place(models, 2, ""), models.folder / "gone")
    models.add(weights())
    with pytest.raises(WeightsError, match="no model gain@2"):
        models.load("gain")
    assert "is the current version, but it is gone" in problems(models)["gain/current"]


def test_what_is_no_model_is_left_aside(models):
    models.add(weights())
    (models.folder / "notes").write_text("mine")
    (models.folder / "Old Ones").mkdir()
    (models.folder / "empty").mkdir()
    (models.folder / "gain" / "2").write_text("mine")
    (models.folder / "gain" / "01").mkdir()
    assert models.names() == ["gain"]
    assert models.versions("gain") == [1]
    with pytest.raises(RunError, match=r"cannot write in .*: Not a directory"):
        models.add(weights())  # its number is taken by what is no version
    assert problems(models) == {}


def test_half_a_version_is_told_apart(models):
    for file, text in (("card.json", "nobody knows what"), ("weights.safetensors", "is missing")):
        version = models.add(weights()).version
        place(models, version, file).unlink()
        with pytest.raises(WeightsError, match=text):
            models.load(f"gain@{version}")


@pytest.mark.parametrize(
    "text", ["", "1", "x\n", "1\n\n", "0\n", "1 2\n", "\xff\n", "1\n" * 200_000]
)
def test_a_pointer_that_was_changed_is_told_and_promoting_mends_it(models, text):
    models.add(weights())
    models.promote("gain@1")
    rewrite(models.folder / "gain" / "current", text.encode("latin-1"))
    with pytest.raises(WeightsError, match="is no list of versions"):
        models.load("gain")
    assert set(problems(models)) == {"gain/current"}
    models.promote("gain@1")
    assert models.load("gain").version == 1


def test_a_damaged_version_cannot_be_promoted(models):
    models.add(weights())
    models.add(weights(2.0))
    models.promote("gain@1")
    path = place(models, 2, "weights.safetensors")
    rewrite(path, path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="was changed after it was written"):
        models.promote("gain@2")
    assert models.current("gain") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "../up"}, {}), ({"name": ""}, {}), ({"name": "A"}, {}),
        ({"arrays": {"c": np.ones(2, np.complex128)}}, {}),
        ({"arrays": {"__metadata__": np.ones(2)}}, {}),
        ({"arrays": {"two words": np.ones(2)}}, {}),
        ({}, {"scores": {"ser": float("nan")}}), ({}, {"training": {"x": object()}}),
        ({}, {"training": {"x": "y" * 300_000}}),
    ],
)  # fmt: skip
def test_what_could_not_be_read_back_is_not_written(models, given, said):
    models.add(weights())
    with pytest.raises(WeightsError):
        models.add(weights(**given), **said)
    left = {path.name for path in models.folder.rglob("*")} - {"gain"}
    assert left == {"1", "card.json", "weights.safetensors"}


# writers that meet, that are killed, and that find no room

WRITER = """
import sys
from pathlib import Path
import numpy as np
from pipeline.models import Models
from pipeline.weights import Weights
models = Models(Path(sys.argv[1]), [])
for n in range(int(sys.argv[2])):
    gain = int(sys.argv[3]) + n
    added = models.add(Weights("gain", 1, {"gain": np.full(2000, float(gain))}))
    models.promote(f"gain@{added.version}")
    print(added.version, gain, flush=True)
"""


def test_writers_at_once_share_the_numbers_and_lose_none(models):
    got: list[tuple[int, float]] = []

    def write(first: int) -> None:
        for gain in range(first, first + 10):
            got.append((models.add(weights(float(gain))).version, float(gain)))

    other = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(models.folder), "10", "2000"], stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    threads = [threading.Thread(target=write, args=[100 * n]) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    said, _ = other.communicate(timeout=60)
    assert other.returncode == 0
    got += [(int(version), float(gain)) for version, gain in map(str.split, said.splitlines())]
    assert sorted(version for version, _ in got) == list(range(1, 41))
    for version, gain in got:
        assert models.load(f"gain@{version}").arrays["gain"].flat[0] == gain
    assert problems(models) == {}
    assert not list(models.folder.glob("gain/.*"))


def test_promotions_at_once_are_all_remembered(models):
    for gain in range(9):
        models.add(weights(float(gain)))
    threads = [threading.Thread(target=models.promote, args=[f"gain@{n}"]) for n in range(1, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    lines = (models.folder / "gain" / "current").read_text().split()
    assert sorted(map(int, lines)) == list(range(1, 10))


def test_a_writer_that_is_killed_leaves_only_whole_versions(models):
    whole = 0
    for delay in np.linspace(0.0, 0.02, 6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(models.folder), "10000", "0"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert problems(models) == {}
        assert models.load("gain").version in models.versions("gain")
        whole = models.versions("gain")[-1]
        assert models.versions("gain") == list(range(1, whole + 1))
    assert models.add(weights()).version == whole + 1
    for path in models.folder.glob("gain/.new-*"):
        os.utime(path, (0.0, 0.0))
    models.add(weights())
    assert not list(models.folder.glob("gain/.new-*"))


def test_a_disk_without_room_leaves_nothing_and_says_what_to_do(models):
    models.add(weights())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails with EFBIG instead
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(RunError, match=r"cannot write in .*: File too large; set KALVIT"):
            models.add(weights(arrays={"gain": np.zeros(10_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert models.versions("gain") == [1]
    assert not list(models.folder.glob("gain/.*"))
