"""336,776 real flights, an agent for each aircraft, airport and airline, and a node that is killed in the middle.

`rows` reads the file and refuses nonsense, `agents` are the platform's side, `load` is the node with the loader in it,
`demo` the parent that kills and restarts it, and `books` reckons the same totals straight from the file, sharing no code
with the agents.
"""
