"""JidoSystem: the platform for autonomous agents in Python."""

__version__ = "0.1.0"
