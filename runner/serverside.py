"""What a request lets its server do beside answering, at prices that no price of tokens tells: web searches above all.

Rule: said too often rather than too seldom, since a budget is kept by it. By members of the body (OpenAI's
web_search_options, OpenRouter's plugins, xAI's search_parameters, Qwen's enable_search), by tools that the server runs
itself (whatever is not a function for us to call), and by models that search whether asked or not (OpenAI's search
models, Perplexity's Sonar, deep research, OpenRouter's `:online`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

#: Members that order it unless they are null, false, an empty list or say `mode: off`.
MEMBERS: Final = frozenset({"web_search_options", "plugins", "search_parameters", "enable_search"})
_OURS: Final = ("function", "custom")
_SEARCHING: Final = ("-search", "sonar", "deep-research")


def extras(body: Mapping[str, Any]) -> str | None:
    """In words, what of this body (or of the constants of many) is billed beside its tokens; None: nothing."""
    for name in sorted(MEMBERS & body.keys()):
        if body[name] not in (None, False, []) and not _switched_off(body[name]):
            return f"request.{name}"
    model = body.get("model")
    if isinstance(model, str) and searches(model):
        return f"the model {model}, which searches,"
    tools = body.get("tools")
    if isinstance(tools, list) and any(map(_is_theirs, tools)):
        return "a tool that the server runs itself (request.tools)"
    return None


@lru_cache(maxsize=1024)
def searches(model: str) -> bool:
    """Whether a model of this name searches the web by itself."""
    name = model.lower()
    return name.endswith(":online") or any(piece in name.rsplit("/", 1)[-1] for piece in _SEARCHING)


def _switched_off(value: Any) -> bool:
    return isinstance(value, dict) and value.get("mode") == "off"


def _is_theirs(tool: Any) -> bool:
    return not isinstance(tool, dict) or tool.get("type") not in _OURS
