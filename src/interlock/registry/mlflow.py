"""The little of MLflow's REST API that taking a model, and giving its alias and tags back, needs. Tried with MLflow 3.17.

The server is `MLFLOW_TRACKING_URI`, credentials are those of MLflow's own client: `MLFLOW_TRACKING_TOKEN`, or
`MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`. They go to that server only.
"""

from __future__ import annotations

import base64
import functools
import http.client
import operator
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from interlock.core.errors import Misconfigured, NotFound, Refused, Unavailable, Usage

TIMEOUT = 10.0
MAX_ANSWER = 1 << 22
API = "/api/2.0/mlflow"
URI = re.compile(
    r"mlflow:(?:models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/]+))|runs:/(?P<run>[^/]+)/(?P<path>.+))"
)


class Server:
    """An MLflow server at an http or https address. Redirects are not followed.

    Raises:
        Misconfigured: the address is no such one.
    """

    def __init__(self, url: str, environment: Mapping[str, str] = os.environ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Misconfigured(
                f"{url!r} is no address of an MLflow server", next="export MLFLOW_TRACKING_URI=http://HOST:5000"
            )
        port = f":{parts.port}" if parts.port else ""
        self.url = f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"
        own = urlsplit(environment.get("MLFLOW_TRACKING_URI", ""))
        trusted = (own.scheme, own.hostname, own.port) == (parts.scheme, parts.hostname, parts.port)
        self._headers = (
            _authorization(parts.username or own.username, parts.password or own.password, environment)
            if trusted
            else {}
        )

    def get(self, path: str, *keys: str, **query: str) -> Any:
        """What stands under `keys` in the JSON answer of a GET; errors as `read`."""
        found: Any = self.read(f"{API}/{path}?{urlencode(query)}", MAX_ANSWER)
        try:
            return functools.reduce(operator.getitem, keys, msgspec.json.decode(found))
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise Unavailable(f"what answers at {self.url} is no MLflow server: {error!r}") from error

    def aliases(self, name: str, version: str) -> list[str]:
        """Those of a model's version; errors as `read`."""
        found = self.get("model-versions/get", "model_version", name=name, version=version)
        return list(found.get("aliases", ())) if isinstance(found, dict) else []

    def send(self, method: str, path: str, **body: str) -> None:
        """POST or DELETE a JSON body; errors as `read`."""
        self._ask(method, f"{API}/{path}", msgspec.json.encode(body), MAX_ANSWER)

    def read(self, path: str, limit: int) -> bytes:
        """The bytes of an answer.

        Raises:
            NotFound: there is no such thing.
            Refused: the server says no, or it is larger than `limit`.
            Unavailable: it cannot be reached, or fails.
        """
        return self._ask("GET", path, None, limit)

    def _ask(self, method: str, path: str, body: bytes | None, limit: int) -> bytes:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        connection = (
            http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT, context=ssl.create_default_context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT)
        )
        try:
            connection.request(method, parts.path + path, body, {**self._headers, "content-type": "application/json"})
            answer = connection.getresponse()
            data = answer.read(limit + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"MLflow at {self.url} does not answer: {error}") from error
        finally:
            connection.close()
        if answer.status == 404:
            raise NotFound(f"MLflow at {self.url} has no such thing: {_message(data)}")
        if answer.status >= 500:
            raise Unavailable(f"MLflow at {self.url} failed: {answer.status} {_message(data)}")
        if answer.status != 200:
            raise Refused(f"MLflow at {self.url} says {answer.status}: {_message(data)}")
        if len(data) > limit:
            raise Refused(f"MLflow at {self.url} sends more than {limit >> 20} MiB")
        return data


class MlflowModel:
    """A model there. `name`, `version`: in its registry; empty for a model of a run."""

    def __init__(self, server: Server, base: str, name: str = "", version: str = "") -> None:
        self.server, self.name, self.version = server.url, name, version
        self._server, self._base = server, base

    def read(self, path: str, limit: int) -> bytes:
        """A file of the model, as `Server.read`."""
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise Refused(f"{path!r} is no path inside a model")
        return self._server.read(f"{self._base}{quote(path, safe='')}", limit)


def find(uri: str, environment: Mapping[str, str] = os.environ) -> MlflowModel:
    """The model of `mlflow:models:/NAME/VERSION`, `mlflow:models:/NAME@ALIAS` or `mlflow:runs:/RUN/NAME`.

    Raises:
        Usage: it is of another form.
        Misconfigured: no server is named.
        NotFound: there is none.
        Unavailable: the server does not answer.
    """
    match = URI.fullmatch(uri)
    if match is None:
        raise Usage(
            f"{uri!r} names no model", next="mlflow:models:/NAME/3, mlflow:models:/NAME@ALIAS or mlflow:runs:/RUN/NAME"
        )
    url = environment.get("MLFLOW_TRACKING_URI", "")
    if not url:
        raise Misconfigured("no MLflow server is named", next="export MLFLOW_TRACKING_URI=http://HOST:5000")
    server = Server(url, environment)
    if match["run"]:
        return _of_run(server, match["run"], match["path"])
    name, version = match["name"], match["version"]
    if match["alias"]:
        version = server.get("registered-models/alias", "model_version", "version", name=name, alias=match["alias"])
    else:
        server.aliases(name, version)  # NotFound, if there is no such version
    query = urlencode({"name": name, "version": version})
    return MlflowModel(server, f"/model-versions/get-artifact?{query}&path=", name, version)


def _of_run(server: Server, run: str, path: str) -> MlflowModel:
    """MLflow 3 keeps models beside runs, 2 below them."""
    outputs = server.get("runs/get", "run", run_id=run).get("outputs", {}).get("model_outputs", [])
    infos = [server.get(f"logged-models/{quote(one['model_id'])}", "model", "info") for one in outputs]
    named = [one for one in infos if one["name"] == path]
    if named:
        newest = quote(max(named, key=lambda one: int(one["creation_timestamp_ms"]))["model_id"])
        return MlflowModel(server, f"/ajax-api/2.0/mlflow/logged-models/{newest}/artifacts/files?artifact_file_path=")
    return MlflowModel(server, f"/get-artifact?{urlencode({'run_id': run})}&path={quote(path, safe='')}%2F")


def _authorization(user: str | None, password: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    user = user or environment.get("MLFLOW_TRACKING_USERNAME")
    password = password or environment.get("MLFLOW_TRACKING_PASSWORD", "")
    if token:
        return {"authorization": f"Bearer {token}"}
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()} if user else {}


def _message(data: bytes) -> str:
    try:
        return str(msgspec.json.decode(data)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return data[:200].decode(errors="replace").strip()
