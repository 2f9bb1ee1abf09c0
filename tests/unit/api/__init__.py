"""REST over services that remember nothing but what a test put there."""
