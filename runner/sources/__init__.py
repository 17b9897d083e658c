"""Input files as rows: JSONL, CSV, Parquet.

lines, jsonl, delimited    bytes -> records            types    records -> Arrow
parquet, promote           Parquet files, one schema   tiles    records -> ranges and their hashes
expand                     patterns -> files           catalog  what a survey knows
reader                     rows and slices of a range
"""

from __future__ import annotations

from runner.sources.catalog import Survey, SurveyOptions
from runner.sources.expand import expand
from runner.sources.reader import Reader

__all__ = ["Reader", "Survey", "SurveyOptions", "expand"]
