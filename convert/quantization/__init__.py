"""Which integers stand for which values: ranges, mixed precision, promises."""
