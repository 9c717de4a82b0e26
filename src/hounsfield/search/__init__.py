"""Search for parameters: the spaces, Bayesian and greedy proposals, resumable studies, and their report."""
