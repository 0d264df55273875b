"""Images a second, on one core."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.images.scenes import SIDE
from blocks.kernels.image_encoder import encoder_of
from blocks.models.image_encoder import ImageEncoder


def speed() -> None:
    """Images a second."""

    torch.set_num_threads(1)
    module = ImageEncoder(side=SIDE, angles=(True,))
    encoder = encoder_of(module.hyper, module.arrays())
    images = np.random.default_rng(0).random((2000, SIDE, SIDE)).astype(np.float32)
    means, variances = np.empty((2, 2000, 1))
    works: dict[str, tuple[Callable[[], Any], int]] = {
        "ours": (lambda: encoder(images, means, variances), 2000),
        "torch, one image at a time": (lambda: [module(images_t[k : k + 1]) for k in range(200)],
                                       200),
        "torch, 500 at a time": (lambda: [module(part) for part in images_t.split(500)], 2000),
    }  # fmt: skip
    images_t = torch.from_numpy(images)
    least = dict.fromkeys(works, np.inf)
    with torch.no_grad():
        for _ in range(10):
            for name, (work, count) in works.items():
                begin = time.thread_time()
                work()
                least[name] = min(least[name], (time.thread_time() - begin) / count)
    for name, seconds in least.items():
        print(f"{name}: {1.0 / seconds:.0f} images/s, {seconds * 1e6:.1f} us each")
