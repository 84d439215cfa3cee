"""CLIP image encoders, heads, images and corruptions, with open_clip and its relatives."""
