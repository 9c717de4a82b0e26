"""Training of both networks by Lightning Fabric; import `fit` where it is used, for it is slow to load."""
