"""Images: from a source through the decoded store to training and validation splits."""
