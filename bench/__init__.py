import zfcore  # noqa: F401  first, for a Ctrl-C while the rest is imported
