"""Data sets: what their classes are, and how to read them from folders."""
