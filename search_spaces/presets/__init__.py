"""The spaces that are shipped, as TOML files."""
