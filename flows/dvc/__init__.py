"""The only place that reaches into DVC."""
