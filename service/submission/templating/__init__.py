"""Templates, and the processes of their own that render them."""
