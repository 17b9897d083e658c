"""Input files as rows: JSONL, CSV, Parquet.

lines, jsonl, delimited    bytes -> records            types    records -> Arrow
parquet, promote           Parquet files, one schema   tiles    records -> ranges and their hashes
expand                     patterns -> files           catalog  what a survey knows
unpack, stream             .gz, .zst and stdin as text
spool, copies, hugegroups  copies of what cannot be sought
reader                     rows and slices of a range
"""

from __future__ import annotations

from runner.sources.catalog import STDIN, Survey, SurveyOptions
from runner.sources.expand import expand
from runner.sources.reader import Reader
from runner.sources.spool import DIRECTORY, Spooling, copies_stand

__all__ = ["DIRECTORY", "STDIN", "Reader", "Spooling", "Survey", "SurveyOptions", "copies_stand", "expand"]
