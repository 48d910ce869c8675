"""What makes maps of heads, inside the file."""
