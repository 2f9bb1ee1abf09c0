"""What is installed and deployed: lists of packages, policies of a cloud."""
