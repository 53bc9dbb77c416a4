"""Ways of dividing devices other than the auction, behind the same port: to compare, and to choose. Pure."""
