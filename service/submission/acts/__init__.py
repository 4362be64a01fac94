"""What people do to messages that are there."""
