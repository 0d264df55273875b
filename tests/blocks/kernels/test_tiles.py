import numpy as np
import pytest

from blocks.kernels import tiles
from blocks.kernels.tiles import WIDTH


@pytest.mark.parametrize(("dtype", "vectors"), [(np.float32, 2), (np.float64, 2), (np.int8, 1)])
@pytest.mark.parametrize("size", [1, 7, 8, 83])
@pytest.mark.parametrize("count", [1, 8, 11, 16, 35])
def test_a_tile_holds_sequences_in_its_columns_and_gives_them_back(dtype, vectors, size, count):
    width, some = 32 if dtype == np.int8 else WIDTH, (0.0,) * vectors
    starts, tile = np.empty(width, np.int64), tiles.empty(size * width, dtype)
    flat = np.random.default_rng(size).integers(-99, 99, count * (size + 3)).astype(dtype)
    sequences = flat.reshape(count, size + 3)[:, :size]
    out = np.zeros((count, size), dtype)
    for at in range(0, count, width):
        tiles.fill(flat, at, count, size + 3, starts, tile, some)
        held = sequences[np.minimum(at + np.arange(width), count - 1)]
        np.testing.assert_array_equal(tile.reshape(size, width), held.T)
        tiles.empty_out(tile, size, at, count, starts, out.reshape(-1), some)
    np.testing.assert_array_equal(out, sequences)


def test_whole_numbers_are_narrowed_on_their_way_out():
    tile = tiles.empty(30 * WIDTH, np.int32)
    numbers = np.random.default_rng(1).integers(0, 256, (30, 12))
    tile[:] = numbers[:, np.minimum(np.arange(WIDTH), 11)].reshape(-1)
    out = np.empty(12 * 29, np.uint8)
    tiles.empty_out(tile, 29, 0, 12, np.empty(WIDTH, np.int64), out, tiles.VECTORS)
    np.testing.assert_array_equal(out.reshape(12, 29), numbers[:29].T)


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
