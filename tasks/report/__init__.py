"""The report: pages that declare what they read and show."""
