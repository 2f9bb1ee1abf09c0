"""What the documents and the house rules say, checked."""
