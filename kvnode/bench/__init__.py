"""The load generator: which operations, on which keys, when, and what is counted.

`kvnode bench` runs it against any cluster; bench/ in the repository runs it against several stores
in turn. It knows the client and no node: a store is what `store.Store` says.
"""
