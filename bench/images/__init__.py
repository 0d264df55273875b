"""Images of a pendulum and of a Lorenz point: what a network reads, and what tracks it.

    python -m bench.images study --scene lorenz --seed 0 --out lorenz_0.json
    python -m bench.images table FILES...         # the rows of all seeds, as in bench/IMAGES.md
    python -m bench.images speed                  # images a second, on one core

The settings of Buchnik et al., "Latent-KalmanNet", arXiv 2304.07827: 28 x 28 pixels, of which a
share is black or white at random; trajectories of 200 steps. Pendulum: the paper's step of 50 ms,
q2 = 1e-3, the arm at a quarter turn at first; errors of angles are around the circle. Lorenz: steps
of 20 ms with A(x) = [[-10, 10, 0], [28 - z, -1, 0], [y, 0, -8/3]] to 5 terms, q2 = 0.1, in 8 steps
of grey as coarse as the authors' rounding makes the images in the middle of the attractor. One more
case that the paper has not: half of the pixels lost, and Gaussian noise of 0.2 on all.

Readers of single images, of which each is followed by an extended filter with noise tuned on
validation trajectories:

matching  knows the camera: the likeliest of a bank of templates, refined by robust least squares
centroid  knows no camera: moments of the brightness and of the greyness, squared and fitted by
          least squares to the training images
encoder   the network of frontend.learned_features, trained on them; the filter may be told how sure
          it is ("told"), and a KalmanNet may learn the gain
prior     the network of tracker.latent_kalmannet, which sees the prediction of the tracker beside
          the image, with a learned gain (Latent-KalmanNet)
"""
