"""Credentials for a Kubeflow Pipelines server, as users have them; none of them is ever printed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from kfp import client as kfp_client

from hounsfield.errors import InputError

TOKEN, COOKIE = "HOUNSFIELD_KFP_TOKEN", "HOUNSFIELD_KFP_COOKIE"
USER, PASSWORD = "HOUNSFIELD_KFP_USER", "HOUNSFIELD_KFP_PASSWORD"
SECONDS = (3, 30)
"""Limits for connecting and for an answer."""


@dataclass(frozen=True)
class Credentials:
    """What a request carries; `setting` says where it came from, for messages."""

    setting: str
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Keyword arguments of `kfp.Client`."""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def hide(self, text: str) -> str:
        """`text` without any of the secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def credentials(host: str) -> Credentials:
    """The credentials of the environment for `host`, which is empty where kfp finds the server itself.

    In this order: a bearer token (HOUNSFIELD_KFP_TOKEN), a session cookie (HOUNSFIELD_KFP_COOKIE), a login at Dex
    (HOUNSFIELD_KFP_USER and HOUNSFIELD_KFP_PASSWORD), a ServiceAccount's token mounted into the pod
    (KF_PIPELINES_SA_TOKEN_PATH), else those of kfp's own context or none, as through a port-forward.

    Raises:
        InputError: two of the first three are set, one lacks its host or half, or Dex refuses.
    """
    given = [name for name in (TOKEN, COOKIE, USER) if os.environ.get(name)]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are both set: unset all but one")
    if given and not host:
        raise InputError(f"{given[0]} is set but no server: give --host, such as https://kubeflow.example.org/pipeline")
    if given == [TOKEN]:
        token = os.environ[TOKEN].strip()
        return Credentials(TOKEN, {"existing_token": token}, (token,))
    if given == [COOKIE]:
        cookie = os.environ[COOKIE].strip()
        if "=" not in cookie:
            raise InputError(
                f"{COOKIE}: expected NAME=VALUE as the browser sends it, such as oauth2_proxy_kubeflow=..."
            )
        return Credentials(COOKIE, {"cookies": cookie}, (cookie, cookie.partition("=")[2]))
    if given == [USER]:
        password = os.environ.get(PASSWORD, "")
        if not password:
            raise InputError(f"{USER} is set without {PASSWORD}")
        cookie = dex_session(host, os.environ[USER], password)
        return Credentials(f"{USER} and {PASSWORD}", {"cookies": cookie}, (password, cookie))
    path = os.environ.get(kfp_client.KF_PIPELINES_SA_TOKEN_ENV, "")
    if path and not Path(path).is_file():
        raise InputError(
            f"{kfp_client.KF_PIPELINES_SA_TOKEN_ENV} names {path}, which is not there: mount the ServiceAccount's "
            "token with audience pipelines.kubeflow.org, or unset the variable"
        )
    if path or Path(kfp_client.KF_PIPELINES_SA_TOKEN_PATH).is_file():
        mounted = kfp_client.ServiceAccountTokenVolumeCredentials()
        return Credentials(kfp_client.KF_PIPELINES_SA_TOKEN_ENV, {"credentials": mounted})
    return Credentials(f"{COOKIE}, {TOKEN} or {USER}" if host else "the user of your kubeconfig")


def dex_session(host: str, user: str, password: str) -> str:
    """Cookie header of a session at `host`, got by Dex's form for a name and a password.

    Raises:
        InputError: no such form there, or the name and password are refused.
    """
    with requests.Session() as session:
        try:
            page = session.get(host, timeout=SECONDS)
            if page.status_code in (401, 403):
                page = session.get(urljoin(host, f"/oauth2/start?rd={urlsplit(host).path or '/'}"), timeout=SECONDS)
            if urlsplit(page.url).path.endswith("/auth"):
                page = session.get(page.url.replace("/auth?", "/auth/local?", 1), timeout=SECONDS)
            if "/auth/" not in urlsplit(page.url).path:
                raise InputError(
                    f"{host} shows no login page of Dex: unset {USER} if it needs no login, or set {COOKIE} to the "
                    "session cookie of your browser"
                )
            page = session.post(page.url, data={"login": user, "password": password}, timeout=SECONDS)
            if urlsplit(page.url).path.endswith("/approval"):
                page = session.post(page.url, data={"approval": "approve"}, timeout=SECONDS)
        except requests.RequestException as error:
            reason = type(error).__name__
            raise InputError(f"the login at {host} did not answer ({reason}): check --host") from error
        if "/auth/" in urlsplit(page.url).path or not session.cookies:
            raise InputError(f"the login at {host} was refused: check {USER} and {PASSWORD}")
        wanted = requests.Request("GET", host)
        return session.prepare_request(wanted).headers.get("Cookie", "")
