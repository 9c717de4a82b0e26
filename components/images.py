"""References of the container images that the steps run in."""

CPU_IMAGE = "hounsfield-python:0.1.0"
TRAINING_IMAGE = "hounsfield-training-python:0.1.0"
