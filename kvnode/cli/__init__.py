"""The `kvnode` command: one process that starts nodes, talks to them and shows what they say."""
