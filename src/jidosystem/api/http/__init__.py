"""The node's HTTP API: everything that the command line asks a running node, for programs in any language too.

It listens on loopback only, and every route but `/health` needs the node's token.
"""
