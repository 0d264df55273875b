"""How nodes and networks become better: losses, schedules, strategies; no runtime."""
