"""The data check: what may spoil a study of these images."""
