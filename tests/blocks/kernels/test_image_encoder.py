"""Encoders of images against sums written out, and what they refuse."""

import numpy as np
import pytest
from image_encoders import random_encoder

from blocks.kernels.image_encoder import encoder_of

RNG = np.random.default_rng(3)


def slowly(hyper, arrays, image):
    """Outputs of the last layer, every sum written out as it is defined."""
    maps = np.stack([image, 4.0 * image * (1.0 - image)]).astype(np.float64)
    for k, kernel in enumerate(hyper["kernels"]):
        weight, bias = arrays[f"conv{k}.weight"], arrays[f"conv{k}.bias"]
        edge = kernel // 2
        wide = np.pad(maps, ((0, 0), (edge, edge), (edge, edge)))
        side = (maps.shape[1] + 2 * edge - kernel) // 2 + 1
        out = np.empty((len(weight), side, side))
        for c, i, j in np.ndindex(out.shape):
            patch = wide[:, 2 * i : 2 * i + kernel, 2 * j : 2 * j + kernel]
            out[c, i, j] = max((weight[c] * patch).sum() + bias[c], 0.0)
        maps = out
    x = maps.transpose(1, 2, 0).ravel()
    x = np.maximum(arrays["dense0.weight"] @ x + arrays["dense0.bias"], 0.0)
    return arrays["dense1.weight"] @ x + arrays["dense1.bias"]


def test_numbers_angles_and_variances_are_those_of_sums_written_out():
    weights = random_encoder((False, True, False))
    encoder = encoder_of(weights.hyper, weights.arrays)
    images = RNG.random((5, 9, 9)).astype(np.float32)
    means, variances = np.empty((2, 5, 3))
    encoder(images, means, variances)
    for k, image in enumerate(images):
        a, c, s, b, *log_vars = slowly(weights.hyper, weights.arrays, image)
        np.testing.assert_allclose(means[k], [a, np.arctan2(s, c), b], rtol=1e-4, atol=1e-5)
        expected = np.exp(log_vars) / [1.0, c * c + s * s, 1.0]
        np.testing.assert_allclose(variances[k], expected, rtol=1e-4)


def test_an_image_with_a_missing_pixel_tells_nothing_and_leaves_the_others_alone():
    weights = random_encoder((False, True))
    encoder = encoder_of(weights.hyper, weights.arrays)
    images = RNG.random((3, 9, 9)).astype(np.float32)
    whole, variances = np.empty((2, 3, 2))
    encoder(images, whole, variances)
    images[1, 0, 0] = np.nan
    means = np.empty((3, 2))
    encoder(images, means, variances)
    assert np.isnan(means[1]).all()
    np.testing.assert_array_equal(means[::2], whole[::2])


def test_the_torch_module_tells_the_same():
    torch = pytest.importorskip("torch", reason="needs torch: see pyproject.toml")
    from blocks.models.image_encoder import ImageEncoder

    torch.manual_seed(2)
    module = ImageEncoder(side=28, angles=[False, True])
    module.centre[:], module.scale[:] = torch.tensor([[3.0, 0.0, 0.0], [2.0, 1.0, 1.0]])
    encoder = encoder_of(module.hyper, module.arrays())
    images = RNG.random((20, 28, 28)).astype(np.float32)
    means, variances = np.empty((2, 20, 2))
    encoder(images, means, variances)
    with torch.no_grad():
        parts, log_vars = module(torch.from_numpy(images))
    parts = (parts * module.scale + module.centre).numpy()
    np.testing.assert_allclose(means[:, 0], parts[:, 0], rtol=1e-5)
    np.testing.assert_allclose(means[:, 1], np.arctan2(parts[:, 2], parts[:, 1]), atol=2e-5)
    spread = np.exp(log_vars.numpy()) * [4.0, 1.0]
    spread[:, 1] /= np.square(parts[:, 1:]).sum(1)
    np.testing.assert_allclose(variances, spread, rtol=1e-4)


def test_arrays_that_do_not_fit_are_named():
    weights = random_encoder()
    with pytest.raises(ValueError, match=r"conv0 has weight .* but \(4, 2, 5, 5\)"):
        encoder_of({**weights.hyper, "channels": [4, 5]}, weights.arrays)
    encoder = encoder_of(weights.hyper, weights.arrays)
    with pytest.raises(ValueError, match=r"expected float32 \(9, 9\) each"):
        encoder(np.zeros((1, 8, 9), np.float32), np.empty((1, 1)), np.empty((1, 1)))
