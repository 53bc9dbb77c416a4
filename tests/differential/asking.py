"""Parameters and headers: what clients ask with, and what they should not."""

from __future__ import annotations

from random import Random
from typing import Final

Query = list[tuple[str, str]]

ACCEPTS: Final = (
    "application/json", "application/json", "*/*", "", "application/yaml",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/json;as=Table;v=v9;g=meta.k8s.io", "text/html", "application/xml,*/*;q=0.1",
    "application/json;as=Bogus;v=v1;g=meta.k8s.io,application/json",
)  # fmt: skip

# What events are watched as.
WATCHED: Final = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json",
    "application/json;stream=watch", "application/yaml", "text/html",
)  # fmt: skip
_SELECTORS: Final = (
    "app=a", "app!=a", "app", "!app", "app in (a,b)", "app notin (a)", "app=a,tier=b", "x==", "x=",
    "app in ()", "app>1", "app=a b", "a/b/c=d", "=x", "app in (a", ",", "app,", "app in(a, b),!x",
    "tier notin (a,web),app", "example.com/role=web", "x>1", "x<abc", "app = a", "(x)", "app==a==b", "é=1",
)  # fmt: skip
_FIELDS: Final = (
    "metadata.name=a", "metadata.name!=a", "metadata.namespace=$self$",
    "metadata.name=a,metadata.namespace=x",
    "spec.bogus=1", "metadata.uid=1", "status.phase=Pending", "spec.nodeName=", "type=Opaque",
    "metadata.name", "metadata.name==b", "spec.colour=red", "spec.colour!=red", "metadata.labels.app=a",
    "a=b=c", "=", ",", "metadata.name in (a)", "metadata.name=a\\,b",
)  # fmt: skip


_OTHERS: Final = (
    ("timeoutSeconds", "abc"), ("timeoutSeconds", "5"), ("watch", "false"), ("allowWatchBookmarks", "true"),
    ("sendInitialEvents", "true"),
)  # fmt: skip


def write_query(rng: Random, *, apply: bool = False) -> tuple[tuple[str, str], ...]:
    """Mostly none; for an apply mostly a manager."""
    query: Query = []
    if apply and rng.random() < 0.95:
        query.append(("fieldManager", rng.choice(["one", "two", "three"])))
        if rng.random() < 0.4:
            query.append(("force", rng.choice(["true", "true", "false", "1", "maybe"])))
    elif rng.random() < 0.2:
        query.append(("fieldManager", rng.choice(["one", "two", "three", "x" * 129, "bad\u0007", ""])))
    if rng.random() < 0.12:
        query.append(("dryRun", rng.choice(["All", "All", "Some", ""])))
    if rng.random() < 0.3:
        wanted = rng.choice(["Strict", "Strict", "Warn", "Ignore", "Never"])
        query.append(("fieldValidation", wanted))
    if rng.random() < 0.03:
        query.append(rng.choice([("pretty", "true"), ("bogus", "1"), ("force", "true"), ("timeout", "5s")]))
    return tuple(query)


def watch_query(rng: Random, first: int, last: int) -> dict[str, str]:
    """From a state on, mostly one that an answer from the `first` to the `last` step told."""
    query = {"watch": rng.choice(["true", "1"]), "timeoutSeconds": "1"}
    query["resourceVersion"] = rng.choice([f"$rv:{rng.randint(first, last)}$"] * 8 + ["0", "abc"])
    if rng.random() < 0.4:
        query["labelSelector"] = rng.choice(["app=a", "app!=a", "x", "!x", "app in (a,web)"])
    if query["resourceVersion"][0] != "$":
        # The real server asks etcd for more than an older one has where bookmarks begin nowhere.
        return query
    if rng.random() < 0.15:
        query["sendInitialEvents"] = rng.choice(["true", "true", "false"])
        query["resourceVersionMatch"] = rng.choice(["NotOlderThan", "NotOlderThan", "Exact"])
    if rng.random() < 0.2:
        query["allowWatchBookmarks"] = "true"
    return query


def list_query(rng: Random, name: str, steps: int) -> Query:
    """Selectors, pages and versions, in combinations that may mean nothing."""
    query: Query = []
    if rng.random() < 0.35:
        query.append(("labelSelector", rng.choice(_SELECTORS)))
    if rng.random() < 0.3:
        query.append(("fieldSelector", rng.choice((*_FIELDS, f"metadata.name={name}"))))
    if rng.random() < 0.35:
        query.append(("limit", rng.choice(["1", "1", "2", "0", "-1", "abc", "1.5", ""])))
    if rng.random() < 0.12 and steps:
        query.append(("continue", rng.choice([f"$continue:{rng.randint(1, steps)}$", "abc", "e30"])))
    if rng.random() < 0.2:
        known = [f"$rv:{rng.randint(1, steps)}$"] * 4 if steps else []
        query.append(("resourceVersion", rng.choice(["0", "", "abc", "-1", "999999999999", *known])))
    if rng.random() < 0.2:
        query.append(("resourceVersionMatch", rng.choice(["Exact", "NotOlderThan", "Sometimes", ""])))
    if rng.random() < 0.04:
        query.append(rng.choice(_OTHERS))
    return query
