"""The kinds of sources that images come from."""
