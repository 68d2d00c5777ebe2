"""How fast, how small: every workload beside its physical limit and its peers, measured in one go by `make bench`."""
