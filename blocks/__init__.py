"""The catalogue: short names of blocks, imported only when they are used."""

from __future__ import annotations

CATALOGUE: dict[str, str] = {
    "source.random_symbols": "blocks.source.random_symbols:RandomSymbols",
    "source.recording": "blocks.source.recording:Recording",
    "source.random_bits": "blocks.source.random_bits:RandomBits",
    "source.state_space": "blocks.source.state_space:StateSpace",
    "encoder.convolutional": "blocks.encoder.convolutional:Convolutional",
    "encoder.modulator": "blocks.encoder.modulator:Modulator",
    "channel.awgn": "blocks.channel.awgn:Awgn",
    "channel.isi": "blocks.channel.isi:Isi",
    "frontend.cut": "blocks.frontend.cut:Cut",
    "frontend.demapper": "blocks.frontend.demapper:Demapper",
    "frontend.magnitude": "blocks.frontend.magnitude:Magnitude",
    "frontend.soft_bits": "blocks.frontend.soft_bits:SoftBits",
    "detector.viterbi": "blocks.detector.viterbi:Viterbi",
    "detector.sum_product": "blocks.detector.sum_product:SumProduct",
    "detector.modes": "blocks.detector.mode_s:ModeS",
    "decoder.convolutional": "blocks.decoder.convolutional:Convolutional",
    "tracker.kalman": "blocks.tracker.kalman:Kalman",
    "tracker.extended_kalman": "blocks.tracker.extended_kalman:ExtendedKalman",
    "tracker.unscented_kalman": "blocks.tracker.unscented_kalman:UnscentedKalman",
    "tracker.particle": "blocks.tracker.particle:Particle",
    "tracker.smoother": "blocks.tracker.smoother:Smoother",
    "sink.error_rate": "blocks.sink.error_rate:ErrorRate",
    "sink.tracking_error": "blocks.sink.tracking_error:TrackingError",
    "sink.recording": "blocks.sink.recording:Recording",
    "sink.null": "blocks.sink.null:Null",
}
