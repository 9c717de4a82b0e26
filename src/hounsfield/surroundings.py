"""What pods of ours find in their namespace on a cluster, by name: settings, credentials and accounts."""

from typing import Any

CONFIG_MAP = "hounsfield"
S3_SECRET = "hounsfield-s3"
PSEUDONYM_SECRET = "hounsfield-pseudonyms"
PIPELINES_ACCOUNT = "hounsfield-pipelines"
TRIALS_ACCOUNT = "hounsfield-trials"

S3_SETTINGS = (
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)
"""Keys of the ConfigMap, any of which may be absent."""
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""Keys of the Secret, which is absent where the cloud gives pods an identity."""
CHECKPOINTS = "HOUNSFIELD_CHECKPOINTS"
DATASETS = "HOUNSFIELD_DATASETS"
MLFLOW = "MLFLOW_TRACKING_URI"
PSEUDONYM_KEY = "HOUNSFIELD_PSEUDONYM_KEY"


def training_environment() -> list[dict[str, Any]]:
    """The `env` of a container that trains: everything by reference, and all of it optional."""
    sources = [("configMapKeyRef", CONFIG_MAP, key) for key in (*S3_SETTINGS, CHECKPOINTS)]
    sources += [("secretKeyRef", S3_SECRET, key) for key in S3_KEYS]
    return [
        {"name": key, "valueFrom": {kind: {"name": source, "key": key, "optional": True}}}
        for kind, source, key in sources
    ]
