"""Lets pip in an image build find what pip finds here. Usage: pip_in_builds.py FOLDER

Writes FOLDER/pip.conf from the settings of this machine's pip and prints the options of `podman build` for it: secrets,
and mounts of the folders with packages that the settings name.
"""

import configparser
import os
import subprocess
import sys
from pathlib import Path

CERTIFICATES = "/run/secrets/ca_bundle"
NAMES = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert", "timeout", "default-timeout")

folder = Path(sys.argv[1])
listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
settings: dict[str, str] = {}
for line in listed.stdout.splitlines():
    key, _, value = line.partition("=")
    section, _, name = key.rpartition(".")
    if name in NAMES and section in ("global", "install", ":env:"):
        settings[name.removeprefix("default-")] = value.strip("'\"")

options = [f"--secret=id=pip_conf,src={folder / 'pip.conf'}"]
certificates = settings.pop("cert", "") or os.environ.get("SSL_CERT_FILE", "")
if certificates:
    settings["cert"] = CERTIFICATES
    options.append(f"--secret=id=ca_bundle,src={certificates}")
for name in ("find-links", "index-url", "extra-index-url"):
    for text in settings.get(name, "").split():
        path = Path(text.removeprefix("file://"))
        if path.is_absolute() and path.is_dir():
            path = path.parent if path.name == "simple" else path
            options.append(f"--volume={path}:{path}:ro")

config = configparser.RawConfigParser()
config["global"] = settings
with (folder / "pip.conf").open("w") as file:
    config.write(file)
print(*dict.fromkeys(options))
