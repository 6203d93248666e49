"""The analyses of a trial: causal effects, checks of the randomisation, values of other policies, and formats
of other programs, all from an export. No database and no part of the service is needed."""
