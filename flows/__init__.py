"""Running the pipeline: the Prefect flow over dvc.yaml, and the command line."""
