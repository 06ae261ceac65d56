"""Answers: asking each question once, and reading numbers out of text."""
