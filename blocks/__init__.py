"""The catalogue: short names of blocks, imported only when they are used."""

from __future__ import annotations

CATALOGUE: dict[str, str] = {
    "source.random_symbols": "blocks.source.random_symbols:RandomSymbols",
    "source.recording": "blocks.source.recording:Recording",
    "channel.awgn": "blocks.channel.awgn:Awgn",
    "channel.isi": "blocks.channel.isi:Isi",
    "frontend.cut": "blocks.frontend.cut:Cut",
    "detector.viterbi": "blocks.detector.viterbi:Viterbi",
    "detector.sum_product": "blocks.detector.sum_product:SumProduct",
    "sink.error_rate": "blocks.sink.error_rate:ErrorRate",
    "sink.recording": "blocks.sink.recording:Recording",
    "sink.null": "blocks.sink.null:Null",
}
