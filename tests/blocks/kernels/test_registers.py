import numpy as np
import pytest

from blocks.kernels.registers import dense, matrix_at, pattern


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_pattern_holds_what_is_zero_or_one_and_leaves_the_rest_to_the_array(dtype):
    matrix = np.array([[0.0, 1.0, 2.0], [np.nan, -0.0, -1.0]], dtype)
    stack = np.stack([np.full((2, 3), 7.0, dtype), matrix])
    assert matrix_at(stack, 0, pattern(matrix)) == ((0.0, 1.0, 7.0), (7.0, 0.0, 7.0))
    assert matrix_at(stack, 0, pattern(matrix, has_ones=False)) == (
        (0.0, 7.0, 7.0),
        (7.0, 0.0, 7.0),
    )
    assert matrix_at(stack, 0, dense(2, 3)) == ((7.0,) * 3,) * 2


def test_matrices_of_other_numbers_share_a_pattern_and_so_their_code():
    assert pattern(np.array([[2.0, 0.0]])) == pattern(np.array([[3.0, 0.0]]))
    assert pattern(np.array([[1.0, 0.0]])) != pattern(np.array([[3.0, 0.0]]))
