"""Evolution: archives, populations and rounds."""
