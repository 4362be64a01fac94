"""What happens, told to those who follow: the feed, its streams, and webhooks."""
