"""What needs open_clip, torchvision or albumentations: encoders, heads, images, corruptions."""
