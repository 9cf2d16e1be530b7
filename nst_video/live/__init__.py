"""Painting what a camera sees, as it sees it: capture, engine, window, and what else takes the pictures."""
