"""ViterbiNet as it was published, rebuilt from its description in torch.

Layers 1 - 100 sigmoid - 50 ReLU - 16 and a softmax, and the Viterbi algorithm as a loop in Python
over the samples of all words at once; no traceback: each step decides the oldest symbol in the
best of the 16 states. samples (word, time) float32; weight0, bias0 ... as in torch's Linear.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.peers import Work, versioned


def published(samples: Any, **layers: Any) -> Work:
    """Decided symbols (word, time) as 0 and 1; the last three are those of the best end."""
    import torch

    torch.set_num_threads(1)
    parts: list[torch.nn.Module] = []
    for k, activation in enumerate((torch.nn.Sigmoid(), torch.nn.ReLU(), torch.nn.LogSoftmax(1))):
        weight = torch.from_numpy(layers[f"weight{k}"])
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": torch.from_numpy(layers[f"bias{k}"])})
        parts += [linear, activation]
    network = torch.nn.Sequential(*parts)
    received = torch.from_numpy(np.array(samples))
    words, length = received.shape
    states = torch.arange(16)
    # states that may come before: the newest symbol is the lowest digit, the oldest drops out
    before = torch.stack([states // 2, states // 2 + 8], dim=1)

    def run() -> Any:
        with torch.no_grad():
            costs = -network(received.reshape(-1, 1)).reshape(words, length, 16)
            paths = torch.zeros(words, 16)
            decided = torch.empty(words, length, dtype=torch.long)
            for i in range(length):
                best, _ = torch.min(paths[:, before], dim=2)
                paths = best + costs[:, i]
                if i >= 3:
                    decided[:, i - 3] = torch.argmin(paths, dim=1) // 8
            end = torch.argmin(paths, dim=1)
            for k in range(3):
                decided[:, length - 1 - k] = end // 2**k % 2
            return decided.numpy()

    return Work(run, versioned("torch"))
