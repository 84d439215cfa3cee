"""The settings of experiments: a module each, and the section that has them all."""
