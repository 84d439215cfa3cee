"""A file an experiment of the paper."""
