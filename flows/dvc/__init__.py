"""DVC: the only package that imports it."""
