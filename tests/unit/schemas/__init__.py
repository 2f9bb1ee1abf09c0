"""The contract: codec, part plan, topics, values."""
