"""Real images that come with the package, for a first run without network."""
