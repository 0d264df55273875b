"""Function nodes: how likely a sample is, given the symbols that it depends on.

The learned part of a detector; the recursion over the trellis stays as it is. One kind in a file,
with how it decides (numba) and how it is fitted (no torch either).
"""
