"""Data contracts: what one step hands to the next."""
