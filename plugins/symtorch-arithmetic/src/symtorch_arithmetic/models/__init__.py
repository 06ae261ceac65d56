"""Models that are asked: those of Hugging Face, a small decoder that is trained here, and stubs with a known law."""
