"""OpenAI's batch files: lines of requests in and out, lines of results out.

requests    {"custom_id", "method", "url", "body"}    as an input, and as what a job would send
results     {"id", "custom_id", "response", "error"}  of final rows

Rule: pure; a line is a value. The same shapes are read by vLLM's `run_batch` and by every tool around the batch API.
"""
