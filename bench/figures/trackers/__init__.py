"""Errors of all trackers on all models: pictures, numbers, tables.

    python -m bench.figures trackers             # all that is not there yet, then what follows
    python -m bench.figures trackers --quick     # one level of noise each, hardly any training
    python -m bench.figures.trackers cell 'lorenz_rotated:30:kalmannet:*'     # some cells
    python -m bench.figures.trackers table       # pictures and tables of the cells that are there

A cell is one tracker on one model at one level of noise with one seed, SCENARIO:NOISE:TRACKER:SEED;
each writes a JSON file into figures/trackers/cells (--cells) and is not run again. All of them take
some hours of one core; --jobs N shares them among processes. bench/TRACKERS.md holds a run.

scenarios.py says what is simulated and told, methods.py which trackers there are, published.py what
the papers print. Trajectories to learn from, to choose by, to tune on and to test on have different
random numbers; tests are the same for all trackers and seeds. Where the model is not that of the
simulation, all trackers have the same wrong one, but for those that are "told the truth".
"""
