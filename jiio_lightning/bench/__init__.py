"""What the machinery costs, measured: ``jiio bench``."""
