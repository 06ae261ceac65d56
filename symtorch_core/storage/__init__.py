"""What is kept on disk: files written whole, tensors as text, and finished work by a digest."""
