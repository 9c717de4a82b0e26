"""Runs and models in MLflow: where they are recorded, how a model is packaged, which version is the champion."""
