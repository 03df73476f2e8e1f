"""Labels and results in the formats of other tools: a file a format."""
