"""From a half to dense scores, to spots, to files."""
