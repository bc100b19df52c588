"""What the benchmarks share: timing in turns, ranks under mpirun, limits of the machine, models, rivals."""
