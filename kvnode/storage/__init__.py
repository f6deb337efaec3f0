"""The local store of one node: an engine port, two engines, the data folder, the storage thread."""
