"""One prompt over a million rows, once."""
