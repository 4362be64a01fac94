"""What happened, for those who look for it: messages, attempts, content, and why."""
