"""The runtime: moves frames between blocks and knows no algorithm."""
