"""The graph of a suite: paths, code, stages, dvc.yaml."""
