"""Training of both networks by Lightning; import `hounsfield.training.fit` where it is used, for it is slow to load."""
