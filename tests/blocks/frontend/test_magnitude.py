import numpy as np

from blocks.frontend.magnitude import Magnitude


def test_the_magnitude_is_the_root_of_the_squares_of_the_parts():
    samples = np.array([[3 + 4j, -5 - 12j], [0, 1e-30j]], np.complex64)
    found = Magnitude().process(samples).magnitude
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[5, 13], [0, 1e-30]], rtol=1e-6)
