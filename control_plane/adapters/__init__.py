"""The real neighbours behind the ports: S3, the broker, the database, and their in-memory stand-ins."""
