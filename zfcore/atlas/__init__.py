"""Floor 7: a trained network as a folder of pages that a browser opens from the disk."""
