"""Agents inside a web application: FastAPI owns the process, and its lifespan runs the platform."""
