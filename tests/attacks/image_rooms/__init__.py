"""The parts of the room `images`."""
