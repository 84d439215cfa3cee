"""The registered model of a suite: which version is champion, and how it is loaded."""
