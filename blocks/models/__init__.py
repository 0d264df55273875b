"""Networks as torch modules, while they learn: tensors to tensors.

What was learned leaves by `arrays`; receivers run it by numba kernels, without torch.
"""
