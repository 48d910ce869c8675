"""Encoders: from an image to a dictionary of features."""
