"""Merge fine-tuned models into one, with merging coefficients learned on unlabeled images."""
