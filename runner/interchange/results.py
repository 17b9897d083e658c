"""A final row as a line of a result file, its reply put together again from the result columns.

Rule: every member that the batch API promises is there. What the server did not say is null; ids and instants that it
owes are ours. A row that failed has the reply's status and error where the server refused it, else only an `error`;
an answer that was paid for and not taken has both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from runner.conversation import wire_calls

_REFUSED = range(300, 600)
_OK = 200


@dataclass(frozen=True, slots=True)
class Names:
    """What a line and its row are called, and the tools of the request that are no functions."""

    line: str
    row: str
    custom_tools: Collection[str] = ()


def result_line(row: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """row: result columns without prefix, as plain values (export/plain.py)."""
    return {"id": names.line, "custom_id": names.row, "response": _response(row, names), "error": _error(row)}


def _response(row: Mapping[str, Any], names: Names) -> dict[str, Any] | None:
    attempts = row["attempts"] or ()
    request_id = (attempts[-1]["request_id"] if attempts else None) or ""
    if _has_answer(row):
        return {"status_code": _OK, "request_id": request_id, "body": _raw(row) or _completion(row, names)}
    if row["http_status"] in _REFUSED:
        said = {"message": row["error"], "type": row["error_kind"], "param": None, "code": None}
        return {"status_code": row["http_status"], "request_id": request_id, "body": {"error": said}}
    return None


def _error(row: Mapping[str, Any]) -> dict[str, Any] | None:
    if row["status"] != "failed" or (row["http_status"] in _REFUSED and not _has_answer(row)):
        return None
    kind = row["error_kind"]
    return {"code": "request_timeout" if kind == "TIMEOUT" else str(kind).lower(), "message": row["error"]}


def _has_answer(row: Mapping[str, Any]) -> bool:
    return row["status"] != "failed" or any(row[name] for name in ("content", "tool_calls", "refusal"))


def _raw(row: Mapping[str, Any]) -> Any:
    """The reply as it came, when it was kept and is one JSON object (a stream is not)."""
    text = row.get("raw")
    if not text or not text.lstrip().startswith("{"):
        return None
    try:
        return orjson.Fragment(text) if isinstance(orjson.loads(text), dict) else None
    except orjson.JSONDecodeError:
        return None


def _completion(row: Mapping[str, Any], names: Names) -> dict[str, Any]:
    tier = {"service_tier": row["service_tier"]} if row["service_tier"] else {}
    return {
        "id": row["response_id"] or f"chatcmpl-{names.line}",
        "object": "chat.completion",
        "created": row["created"] if row["created"] is not None else _seconds(row["finished_at"]),
        "model": row["model_returned"] or row["model"],
        "choices": [_choice(each, names.custom_tools) for each in row.get("choices") or [{**row, "index": 0}]],
        "usage": _usage(row),
        **tier,
        "system_fingerprint": row["system_fingerprint"],
    }


def _seconds(instant: str | None) -> int:
    return int(datetime.fromisoformat(instant).timestamp()) if instant else 0


def _choice(choice: Mapping[str, Any], custom: Collection[str]) -> dict[str, Any]:
    message = {"role": "assistant", "content": choice["content"], "refusal": choice["refusal"]}
    message |= {"reasoning_content": choice["reasoning"]} if choice.get("reasoning") else {}
    message |= {"tool_calls": wire_calls(choice["tool_calls"], custom)} if choice["tool_calls"] else {}
    return {
        "index": choice["index"],
        "message": message,
        "logprobs": _logprobs(choice.get("logprobs")),
        "finish_reason": choice["finish_reason"],
    }


def _logprobs(tokens: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    content = [_likely(token) | {"top_logprobs": [_likely(other) for other in token["top"] or ()]} for token in tokens]
    return {"content": content, "refusal": None}


def _likely(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token["token"], "logprob": token["logprob"], "bytes": None}


def _usage(row: Mapping[str, Any]) -> dict[str, Any] | None:
    counts = {name: row[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    if all(count is None for count in counts.values()):
        return None
    asked = {"cached_tokens": row["cached_tokens"], "cache_write_tokens": row["cache_write_tokens"]}
    said = {"reasoning_tokens": row["reasoning_tokens"]}
    return {
        **counts,
        "prompt_tokens_details": _told(asked),
        "completion_tokens_details": _told(said),
    }


def _told(counts: Mapping[str, int | None]) -> dict[str, int] | None:
    return {name: count for name, count in counts.items() if count is not None} or None
