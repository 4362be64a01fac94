"""What every request says: bodies as strict JSON, queries, headers; how large and how slow it may be."""
