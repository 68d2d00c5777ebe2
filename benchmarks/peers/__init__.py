"""The peers' side of each row, each in the way that its own documentation shows."""
