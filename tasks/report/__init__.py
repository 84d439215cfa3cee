"""The report: pages, figures, templates."""
