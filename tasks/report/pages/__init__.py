"""The pages of the report, a file a page; tasks.report.reads lists them."""
