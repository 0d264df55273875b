"""What all tests share: one thread per process, and the same examples on every machine."""

import os
import signal

# under nohup SIGHUP is ignored, and programs that tests start would inherit that
signal.signal(signal.SIGHUP, signal.SIG_DFL)

for name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):  # before numpy or numba are imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

from hypothesis import settings  # noqa: E402

# no deadline: CI machines stall; derandomised: a change fails for what it changes
settings.register_profile("kalvit", deadline=None, derandomize=True)
settings.load_profile("kalvit")

# blocks that a worker or a test loads as a user's own file: importing them twice would clash
# or that needs packages of another Python
collect_ignore = ["fault_blocks.py", "peers/gnuradio_side.py"]
