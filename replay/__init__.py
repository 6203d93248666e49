"""Replay: an export is read without a database, and every number in it that can be computed is computed
again.

The format of an export is written and read here alone (`format`); the checks use the same `algorithm` that
served the trial.
"""
