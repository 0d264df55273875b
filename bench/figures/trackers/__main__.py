import argparse
from pathlib import Path

from bench.figures.trackers.cells import attempt, cells

p = argparse.ArgumentParser()
p.add_argument("what")
p.add_argument("cells", nargs="*")
p.add_argument("--out", type=Path, default=Path("figures/cells"))
o = p.parse_args()
for pattern in o.cells:
    for cell in cells(pattern):
        print(attempt(cell, o.out), flush=True)
