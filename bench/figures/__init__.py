"""Detectors on all channels, trackers on all models: pictures, numbers, tables.

    python -m bench.figures            # make figures: both, hours on one core
    python -m bench.figures --quick    # both in a few minutes, fewer of everything
    python -m bench.figures detectors  # 20 minutes on one core; --quick: 2 minutes
    python -m bench.figures trackers   # bench/figures/trackers says what they are
    python -m bench.figures --jobs 4   # the same numbers, from four processes

The detectors' part writes CHANNEL.png, detectors.json and detectors.md into the folder figures/
(--out), which git leaves alone. bench/DETECTORS.md holds a run.

The experiment of Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE 2023, Fig. 16, and of
Shlezinger, Eldar and Boyd, IEEE Access 2022, Fig. 9, with what they leave out: least squares and
Gaussians fitted to the same labels, the learned network with traceback beside the papers' decisions
without, and channels where the shape of the likelihood is unknown.

Channels have the taps exp(-decay l), l = 0 ... 3, decay 0.1, 0.2 ... 2.0, not normalised, and rates
are means over the decays. SNR = 1 / noise variance; Poisson counts have the mean
sqrt(SNR) (taps . symbols) + 1, symbols 0 or 1. Saturation and quantiser stand behind the noise.

Every detector that learns has the same 5000 labelled symbols; all decide the same words of 500, and
know which symbol was sent before. Labels come from the channel itself ("perfect" CSI), or from ten
blocks of 500 symbols with taps h (1 + sqrt(0.1) n), n normal ("uncertain"), while words always
come from the channel itself. Model-based receivers with uncertain taps are wrong in two ways:
sum-product in the same (relative errors, drawn anew for each word), and Viterbi in the papers'
(absolute errors of variance 0.1 in every symbol, decisions of the oldest symbol of the best state).
Exact MAP knows taps, noise and curve; it is the sum-product algorithm, which reproduces the printed
rates of bench/exact_map.py.

Networks are trained as `kalvit train` does, for all its epochs. Black boxes take seconds each, so
they see 2 of the 20 decays and 3 SNRs, and decide at most 200 words; "~" marks rates that are their
ratio to exact MAP there times the rate of exact MAP over all decays.

Intervals are 95 % over words, given what was learned; those of the comparison on the tanh channel
are over draws of labels and words together.
"""
