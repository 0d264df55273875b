"""Symbol error rates of all detectors on all channels: pictures, numbers, tables.

    python -m bench.figures            # make figures; 15 minutes on one core
    python -m bench.figures --quick    # 1 minute: four decays, four SNRs, fewer symbols

The experiment of Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE 2023, Fig. 16, and of
Shlezinger, Eldar and Boyd, IEEE Access 2022, Fig. 9, and what they leave out: least squares and
Gaussians fitted to the same labels, and the network with traceback beside the papers' decisions
without. Taps are exp(-decay l), l = 0 ... 3, decay 0.1, 0.2 ... 2.0, and are not normalised;
SNR = 1 / noise variance. Every detector that learns has the same 5000 labelled symbols, and all
decide the same words, of which they know the symbol sent before.
"""
