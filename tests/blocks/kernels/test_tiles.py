import numpy as np
import pytest

from blocks.kernels import tiles
from blocks.kernels.tiles import WIDTH


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 7, 8, 83])
@pytest.mark.parametrize("count", [1, 8, 11, 16])
def test_a_tile_holds_sequences_in_its_columns_and_gives_them_back(dtype, size, count):
    flat = np.random.default_rng(size).standard_normal(7 + WIDTH * (size + 3)).astype(dtype)
    tile = tiles.empty(size * WIDTH, dtype)
    tiles.fill(flat, 7, size + 3, count, tile)
    sequences = [flat[7 + min(v, count - 1) * (size + 3) :][:size] for v in range(WIDTH)]
    np.testing.assert_array_equal(tile.reshape(size, WIDTH), np.stack(sequences, axis=1))
    out = np.empty(count * size, dtype)
    tiles.empty_out(tile, count, out)
    np.testing.assert_array_equal(out.reshape(count, size), np.stack(sequences[:count]))


def test_whole_numbers_are_narrowed_on_their_way_out():
    tile = tiles.empty(30 * WIDTH, np.int32)
    tile[:] = np.random.default_rng(1).integers(0, 256, tile.size)
    out = np.empty(12 * 30, np.uint8)
    tiles.empty_out(tile, 12, out)
    np.testing.assert_array_equal(out.reshape(12, 30), tile.reshape(30, WIDTH)[:, :12].T)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_scratch_begins_at_a_cache_line(dtype):
    for count in (1, 3, 1000):
        made = tiles.empty(count, dtype)
        assert made.size == count
        assert made.ctypes.data % 64 == 0


def test_rows_lose_their_least_lane_by_lane():
    rows = np.random.default_rng(2).standard_normal((12, WIDTH))
    flat, least = rows.ravel().copy(), np.empty(WIDTH)
    tiles.take_least_off(flat, 2 * WIDTH, 8, least, (0.0,) * 4)
    np.testing.assert_array_equal(least, rows[2:10].min(axis=0))
    expected = rows.copy()
    expected[2:10] -= rows[2:10].min(axis=0)
    np.testing.assert_array_equal(flat.reshape(12, WIDTH), expected)
