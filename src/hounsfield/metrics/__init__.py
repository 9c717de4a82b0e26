"""Counts, ratios and certified average precision: what training, evaluation and search all measure with."""
