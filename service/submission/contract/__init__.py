"""What the API promises: its document, its pages, and every code of a refusal."""
