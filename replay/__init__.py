"""Replay: an export read without a database, and every number in it that can be computed computed again.

The format of an export is written and read here alone (`kinds`, `writing`, `folder`, `trial`); the checks use
the same `algorithm` that served the trial.
"""
