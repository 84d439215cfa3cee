"""The pictures of the report, a file a topic."""
