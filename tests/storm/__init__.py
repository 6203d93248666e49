"""The service while its processes are killed: nothing lost, nothing doubled."""
