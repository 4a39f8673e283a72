"""Option files: text, layers, schema, checks, messages."""
