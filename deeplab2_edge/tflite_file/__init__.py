"""TFLite files, read without trusting them and without any runtime."""
