"""The API server's HTTP side: paths, representations, streams, and the server itself."""
