"""What is done to a server's data from beside the server: backing up, restoring."""
