"""The pages of experiments, a module each."""
