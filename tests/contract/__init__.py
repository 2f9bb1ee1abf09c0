"""What others rely on: messages, schemas, ports, access rules, kept as they are."""
