"""What a machine has and how it is used: devices, memory, transfers, kernels, products of matrices, threads."""
