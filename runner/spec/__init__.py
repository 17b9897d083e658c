"""The job file: its text -> JobSpec, or every mistake with file and line.

    read -> overrides -> files -> judges (endpoint, notbuilt, body, model) -> JobSpec

`read` makes a tree with places of the YAML; `overrides` and `files` change the tree; the judges see plain values and
say (path, sentence); `parse` gives each sentence its place.
"""

from runner.spec.editors import json_schema
from runner.spec.model import JobSpec, PriceSpec, RequestSpec
from runner.spec.parse import kept, parse
from runner.spec.values import EnvRef

__all__ = ["EnvRef", "JobSpec", "PriceSpec", "RequestSpec", "json_schema", "kept", "parse"]
