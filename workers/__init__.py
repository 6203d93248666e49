"""Celery tasks: claim, read in a short transaction, compute with none open, write in a short transaction."""
