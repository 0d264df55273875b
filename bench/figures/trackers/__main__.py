from pathlib import Path
import argparse
from bench.figures.trackers.cells import Cell, attempt

p = argparse.ArgumentParser()
p.add_argument("what")
p.add_argument("cells", nargs="*")
p.add_argument("--out", type=Path, default=Path("figures/cells"))
o = p.parse_args()
for c in o.cells:
    print(attempt(Cell.of(c), o.out), flush=True)
