"""The wire of kvnode: .proto files, the code generated from them, and the token function.

Importing this package imports nothing else, so that a client pays only for what it uses.
"""
