"""What implements the services' ports: SQL, blob stores, BuildKit."""
