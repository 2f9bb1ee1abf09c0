"""One real neighbour: a broker, an S3 server, a database."""
