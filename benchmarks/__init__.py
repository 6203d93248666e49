"""The benchmarks, which state speeds as ratios within one run."""
