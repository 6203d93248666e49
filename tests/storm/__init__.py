"""The storms: the service under duplicated calls and killed processes loses nothing and doubles nothing."""
