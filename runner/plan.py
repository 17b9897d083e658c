"""What a changed job or input means for the answers that a run already has.

Rule: an answer belongs to a request, not to a place. Rows are matched to stored answers by (ordinal, hash) first, then
the rest by hash in order, with multiplicity: an inserted line sends one row, a shuffled file none. Pure: hashes in,
sources out; nothing here reads, sends or asks.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

#: A new row without a stored answer.
NONE = -1


@dataclass(frozen=True, slots=True)
class Stored:
    """What a run holds of one old row: its request, and whether its row is final and ok."""

    request_hash: str | None  #: None: the row was never rendered, or is not final
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """`sources[j]`: the old row whose answer new row j takes, or NONE. Counts are of new rows, but for `removed`."""

    sources: tuple[int, ...]
    old_rows: int
    kept: int  #: answer of the same ordinal
    moved: int  #: answer of another ordinal
    changed: int  #: no answer, while the old row of this ordinal has one that nobody takes
    new: int  #: no answer, and none in its place
    failed: int  #: of kept and moved: the answer is not ok
    removed: int  #: old rows whose answers nobody takes and whose place is gone or taken by another answer

    @property
    def in_place(self) -> bool:
        """Every answer stays at its ordinal, and no row disappears."""
        return self.moved == 0 and self.removed == 0 and len(self.sources) >= self.old_rows

    @property
    def needs_consent(self) -> bool:
        """Something answered would be asked again, or drop out of the results."""
        return self.changed > 0 or self.removed > 0

    def words(self) -> str:
        """`412 kept, 3 changed, 1 new`."""
        counts = [
            (self.kept, "kept"),
            (self.moved, "moved"),
            (self.changed, "changed"),
            (self.new, "new"),
            (self.removed, "removed"),
        ]
        said = ", ".join(f"{count:,} {name}" for count, name in counts if count) or "no rows"
        failed = f" ({self.failed:,} of them not ok)" if self.failed else ""
        return f"{said}{failed}"


def plan(old: Sequence[Stored], new: Sequence[str | None], keep: Sequence[Sequence[str | None]] = ()) -> Plan:
    """Match new rows, given by their request hashes (None: cannot be rendered), to stored answers.

    keep: the hashes of the new rows under each job whose ok answers are to stay with their rows, whatever the rows'
    requests have become; only the rest is matched by the new hashes.
    """
    sources = [NONE] * len(new)
    for hashes in keep:
        _match(old, hashes, sources, only_ok=True)
    _match(old, new, sources)
    used = {source for source in sources if source != NONE}
    unused = {i for i, row in enumerate(old) if row.request_hash is not None and i not in used}
    changed = sum(source == NONE and j in unused for j, source in enumerate(sources))
    kept = sum(source == j for j, source in enumerate(sources))
    unmatched = sum(source == NONE for source in sources)
    return Plan(
        sources=tuple(sources),
        old_rows=len(old),
        kept=kept,
        moved=len(sources) - unmatched - kept,
        changed=changed,
        new=unmatched - changed,
        failed=sum(source != NONE and not old[source].ok for source in sources),
        removed=len(unused) - changed,
    )


def _match(old: Sequence[Stored], new: Sequence[str | None], sources: list[int], *, only_ok: bool = False) -> None:
    """Fill in sources: the answer of the same ordinal, else the earliest of the same hash that nobody took."""
    taken = set(sources)
    offered = [row.request_hash if row.ok or not only_ok else None for row in old]
    for j, request_hash in enumerate(new[: len(old)]):
        if sources[j] == NONE and request_hash is not None and request_hash == offered[j] and j not in taken:
            sources[j] = j
            taken.add(j)
    free: dict[str, deque[int]] = defaultdict(deque)
    for i, request_hash in enumerate(offered):
        if request_hash is not None and i not in taken:
            free[request_hash].append(i)
    for j, request_hash in enumerate(new):
        if sources[j] == NONE and request_hash is not None and free.get(request_hash):
            sources[j] = free[request_hash].popleft()
