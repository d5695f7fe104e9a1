"""What is said, as blocks and numbers, and how it is written."""
