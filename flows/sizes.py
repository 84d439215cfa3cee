"""Sizes in bytes, written for people."""


def gb(size: float) -> str:
    """Write a size in bytes in GB, or in MB where it is below one."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
