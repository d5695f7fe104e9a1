"""Outputs at the freeze boundary: computed once, kept, handed out by batches."""
