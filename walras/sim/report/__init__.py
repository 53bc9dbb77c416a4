"""What policies did, as one HTML page with plots of its own and the data as CSV."""
