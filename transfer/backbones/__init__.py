"""Backbones as ordered lists of blocks: known ones, those of libraries, one's own."""
