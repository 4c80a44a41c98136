"""The atlas of a network: a folder of pages that a browser opens from disk."""
