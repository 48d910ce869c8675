"""Decoders and heads: from encoder features to raw predictions."""
