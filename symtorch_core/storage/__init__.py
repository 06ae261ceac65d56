"""Storage on disk: atomic files, tensors as text, and finished work by a digest."""
