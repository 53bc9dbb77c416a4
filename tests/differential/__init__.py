"""The same requests to the real API server and the embedded one, and every difference in the answers."""
