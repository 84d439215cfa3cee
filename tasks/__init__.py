"""The pipeline's stages, one file each, run as `python -m tasks.<stage>`."""
