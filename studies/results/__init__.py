"""What a study has found: read, compared, judged."""
