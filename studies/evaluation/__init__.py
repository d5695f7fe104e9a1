"""The one test evaluation: what it needs, the images, the result."""
