"""Model cards: what a file is, in Markdown and in HTML with pictures."""
