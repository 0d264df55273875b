import numpy as np
import pytest

from blocks.formats import nmea

pyais = pytest.importorskip("pyais", reason="needs pyais: pip install 'kalvit[dev]'")


@pytest.mark.parametrize("size", range(1, 161))
def test_sentences_are_valid_and_carry_all_bits(size):
    message = np.random.default_rng(size).bytes(size)
    lines = nmea.sentences(message, "B", 7)
    parts = [pyais.NMEAMessage(line.encode()) for line in lines]
    assert all(part.is_valid for part in parts)
    assert all(len(line) <= 80 for line in lines)  # 82 with the end of the line
    assert [part.frag_num for part in parts] == list(range(1, len(lines) + 1))
    assert {part.frag_cnt for part in parts} == {len(lines)}
    assert {part.channel for part in parts} == {"B"}
    assert {part.seq_id for part in parts} == ({7} if len(lines) > 1 else {None})
    values = [ord(c) - 48 for line in lines for c in line.split(",")[5]]
    bits = "".join(f"{value - 8 * (value > 40):06b}" for value in values)
    fill = int(lines[-1].split(",")[6][0])
    assert bits[: len(bits) - fill] == "".join(f"{byte:08b}" for byte in message)
    assert not fill or set(bits[-fill:]) == {"0"}
    assert [line.split(",")[6][0] for line in lines[:-1]] == ["0"] * (len(lines) - 1)
