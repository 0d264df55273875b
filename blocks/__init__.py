"""The catalogue: short names of blocks, imported only when they are used."""

from __future__ import annotations

CATALOGUE: dict[str, str] = {
    "source.random_symbols": "blocks.source.random_symbols:RandomSymbols",
    "source.recording": "blocks.source.recording:Recording",
    "source.random_bits": "blocks.source.random_bits:RandomBits",
    "encoder.convolutional": "blocks.encoder.convolutional:Convolutional",
    "encoder.modulator": "blocks.encoder.modulator:Modulator",
    "channel.awgn": "blocks.channel.awgn:Awgn",
    "channel.isi": "blocks.channel.isi:Isi",
    "frontend.cut": "blocks.frontend.cut:Cut",
    "frontend.demapper": "blocks.frontend.demapper:Demapper",
    "frontend.soft_bits": "blocks.frontend.soft_bits:SoftBits",
    "detector.viterbi": "blocks.detector.viterbi:Viterbi",
    "detector.sum_product": "blocks.detector.sum_product:SumProduct",
    "decoder.convolutional": "blocks.decoder.convolutional:Convolutional",
    "sink.error_rate": "blocks.sink.error_rate:ErrorRate",
    "sink.recording": "blocks.sink.recording:Recording",
    "sink.null": "blocks.sink.null:Null",
}
