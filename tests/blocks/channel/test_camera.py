import numpy as np
import pytest

from blocks.channel.camera import Camera
from pipeline.errors import FieldError

CLEAN = {"salt_pepper": 0.0, "levels": 0}


def images(states, **values):
    block = Camera(**{**CLEAN, **values})
    block.start()
    return block.process(np.array(states, float)).images


@pytest.mark.parametrize(
    ("angle", "row", "column"),
    [(0.0, 23.58, 13.5), (np.pi / 2, 13.5, 23.58), (np.pi, 3.42, 13.5), (-np.pi / 2, 13.5, 3.42)],
)
def test_the_bob_hangs_from_the_middle_at_its_angle(angle, row, column):
    (image,) = images([[angle, 5.0]])
    places = np.arange(28)
    mass = image.sum()
    assert (image.sum(axis=1) @ places) / mass == pytest.approx(row, abs=0.03)
    assert (image.sum(axis=0) @ places) / mass == pytest.approx(column, abs=0.03)


def test_a_point_of_lorenz_is_a_normal_density_of_variance_7_plus_half_of_z():
    x, y, z = 4.0, -7.0, 20.0
    (image,) = images([[x, y, z]], scene="lorenz")
    across, down = np.linspace(-30.0, 30.0, 28), np.linspace(-40.0, 40.0, 28)
    square = (across[None] - x) ** 2 + (down[:, None] - y) ** 2
    np.testing.assert_allclose(image, np.exp(-0.5 * square / 17.0), atol=1e-6)


def test_pixels_are_lost_as_often_as_told_half_of_them_white():
    seen = images(np.full((500, 1), 0.3), salt_pepper=0.4)
    clean = images([[0.3]])[0]
    dark = clean < 1e-3  # there a white pixel is a lost one
    count = 500 * dark.sum()
    assert abs((seen[:, dark] == 1.0).mean() - 0.2) < 4.0 * np.sqrt(0.16 / count)
    bright = clean > 0.5
    lost = (seen[:, bright] == 0.0).mean()
    assert abs(lost - 0.2) < 4.0 * np.sqrt(0.16 / (500 * bright.sum()))


def test_greys_are_rounded_before_the_noise():
    seen = images([[0.3]], levels=4)
    assert set(np.unique(seen)) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    noisy = images(np.full((200, 1), 0.3), levels=4, noise_var=0.04) - seen
    assert noisy.var() == pytest.approx(0.04, rel=0.02)


def test_states_with_too_few_numbers_are_refused():
    with pytest.raises(FieldError, match="'states' have 2 numbers, but a picture of 'lorenz' sho"):
        images([[0.0, 1.0]], scene="lorenz")
