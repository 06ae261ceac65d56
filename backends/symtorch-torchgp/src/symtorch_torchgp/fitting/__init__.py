"""Fits of programs to targets: linear scaling, then constants."""
