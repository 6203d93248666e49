"""The mathematics of the decision service: arrays and numbers in, arrays and numbers out.

Nothing here does input or output, reads a clock, logs, or keeps state that changes; time and randomness are
arguments. Floating point is float64 throughout.
"""
