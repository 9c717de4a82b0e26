"""Searches on a Kubeflow cluster: Katib Experiments of the search spaces, followed to their end."""
