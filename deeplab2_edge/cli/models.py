"""`deeplab2-edge models`: every variant known."""
