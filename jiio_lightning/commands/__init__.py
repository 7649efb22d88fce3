"""One file a command; the Trainer binds those that need a model."""
