"""The Python clients of a server: requests, retries, TLS."""
