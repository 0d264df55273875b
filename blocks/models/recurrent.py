"""Black boxes that read samples one after the other, and tell how likely each symbol is."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from blocks.models.export import array_of, cells_of

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """log p(symbol | samples): inputs (batch, time, n_in) -> (batch, time, order).

    `layers` recurrent layers of `units` units that follow one another, and a softmax of a dense
    layer.
    """

    def __init__(
        self, *, order: int, n_in: int, cell: str, layers: int, units: int, both: bool
    ) -> None:
        super().__init__()
        self.hyper = {
            "order": order, "n_in": n_in, "cell": cell, "layers": layers, "units": units
        }  # fmt: skip
        self.cells = CELLS[cell](n_in, units, layers, batch_first=True, bidirectional=both)
        self.output = nn.Linear((1 + both) * units, order)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.cells(inputs)
        found: Tensor = self.output(hidden).log_softmax(dim=2)
        return found

    def arrays(self) -> dict[str, Any]:
        """Name -> array: those of the layers by torch's names, weight and bias of the output."""
        weight, bias = array_of(self.output.weight), array_of(self.output.bias)
        return {**cells_of(self.cells), "output_weight": weight, "output_bias": bias}


class Sbrnn(Recurrent):
    """The network of a sliding bidirectional recurrent detector, on windows of samples.

    Farsad and Goldsmith, "Neural Network Detection of Data Sequences in Communication Systems",
    IEEE Trans. Signal Proc. 66(21), 2018. The published cells have peepholes, these have none.
    """

    def __init__(
        self, *, order: int, n_in: int = 1, cell: str = "lstm", layers: int = 2, units: int = 16
    ) -> None:
        super().__init__(
            order=order, n_in=n_in, cell=cell, layers=layers, units=units, both=True
        )  # fmt: skip


class Lstm(Recurrent):
    """A network that reads a few samples at a time from the first on: the black box of
    Raviv et al., "Meta-ViterbiNet", 2021.
    """

    def __init__(
        self, *, order: int, n_in: int = 4, cell: str = "lstm", layers: int = 2, units: int = 32
    ) -> None:
        super().__init__(
            order=order, n_in=n_in, cell=cell, layers=layers, units=units, both=False
        )  # fmt: skip
