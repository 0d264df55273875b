"""What the papers print, mean squared errors in dB, by scenario, tracker and 1 / r2 [dB].

Revach et al., "KalmanNet", IEEE Trans. Signal Processing 2022, tables I and III to IX. T.I does
not say its noise; its Kalman filter is that of 20 dB. Extended filters that know the truth stand
beside ours that do. The smoother and the particle smoother's filter of T.IX are those of Ni et al.,
"RTSNet", IEEE Trans. Signal Processing 2024, table VIII.
"""

from __future__ import annotations

from collections.abc import Sequence


def _row(noises: Sequence[float], *values: float) -> dict[float, float]:
    return dict(zip(noises, values, strict=True))


_SINUSOIDAL = (-12.04, -6.02, 0.0, 20.0, 40.0)
_LORENZ = (0.0, 10.0, 20.0, 30.0, 40.0)
_SPHERICAL = (-10.0, 0.0, 10.0, 20.0, 30.0)
_MOTION, _ROTATED, _ONE = _LORENZ[1:], _LORENZ[:4], (0.0,)

PUBLISHED = {
    "linear": {
        "kalman": {20.0: -21.91}, "rnn": {20.0: 58.14}, "mb_rnn": {20.0: 36.8},
        "mb_rnn_difference": {20.0: -21.88}, "kalmannet": {20.0: -21.90},
    },
    "sinusoidal": {
        "ekf_paper": _row(_SINUSOIDAL, -6.23, -13.41, -19.58, -39.78, -59.67),
        "ukf": _row(_SINUSOIDAL, -6.48, -13.14, -18.43, -27.24, -37.27),
        "particle": _row(_SINUSOIDAL, -6.59, -13.33, -18.78, -26.70, -30.98),
        "kalmannet": _row(_SINUSOIDAL, -7.25, -13.19, -19.22, -39.13, -59.10),
    },
    "sinusoidal_partial": {
        "ekf_paper": _row(_SINUSOIDAL, -2.99, -5.07, -7.57, -22.67, -36.55),
        "ukf": _row(_SINUSOIDAL, -0.91, -1.54, -5.18, -24.06, -37.96),
        "particle": _row(_SINUSOIDAL, -2.32, -3.29, -4.83, -23.66, -33.13),
        "kalmannet": _row(_SINUSOIDAL, -6.62, -11.60, -15.83, -34.23, -45.29),
    },
    "lorenz": {
        "ekf_paper": _row(_LORENZ, -10.45, -20.37, -30.40, -40.39, -49.89),
        "ukf": _row(_LORENZ, -5.62, -12.04, -20.45, -30.05, -40.00),
        "particle": _row(_LORENZ, -9.78, -18.13, -23.54, -30.16, -33.95),
        "kalmannet": _row(_LORENZ, -9.79, -19.75, -29.37, -39.68, -48.99),
    },
    "lorenz_spherical": {
        "ekf_paper": _row(_SPHERICAL, 26.38, 21.78, 14.50, 4.84, -4.02),
        "particle": _row(_SPHERICAL, 24.85, 20.91, 14.23, 11.93, 4.35),
        "kalmannet": _row(_SPHERICAL, 14.55, 6.77, -1.77, -10.57, -15.24),
    },
    "lorenz_motion": {
        "ekf_true": _row(_MOTION, -20.37, -30.40, -40.39, -49.89),
        "ekf_paper": _row(_MOTION, -19.47, -23.63, -33.51, -41.15),
        "ukf": _row(_MOTION, -11.95, -20.45, -30.05, -39.98),
        "particle": _row(_MOTION, -17.95, -23.47, -30.11, -33.81),
        "kalmannet": _row(_MOTION, -19.71, -27.07, -35.41, -41.74),
    },
    "lorenz_rotated": {
        "ekf_true": _row(_ROTATED, -10.40, -20.41, -30.50, -40.45),
        "ekf_paper": _row(_ROTATED, -9.80, -16.50, -18.19, -18.57),
        "ukf": _row(_ROTATED, -2.08, -6.92, -7.89, -8.09),
        "particle": _row(_ROTATED, -8.48, -0.18, 15.24, 19.87),
        "kalmannet": _row(_ROTATED, -9.63, -18.17, -27.32, -34.04),
    },
    "decimated": {
        "ekf_paper": _row(_ONE, -6.432), "ukf": _row(_ONE, -5.683),
        "particle": _row(_ONE, -5.337), "kalmannet": _row(_ONE, -11.284),
        "mb_rnn": _row(_ONE, 17.355), "smoother": _row(_ONE, -10.075),
        "rtsnet": _row(_ONE, -16.803),
    },
}  # fmt: skip
