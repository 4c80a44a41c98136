"""Floor 6: one question of the paper a file. Arrays in, a dataclass of arrays out, no printing, no plotting."""
