"""CSV files in a folder become durable orders: a sensor that watches, and a node that is killed while it reads.

`agents` is the platform's side, `__main__` drops the files, kills the node, and compares.
"""
