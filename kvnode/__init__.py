"""kvnode: a leaderless, replicated key-value store in the line of Amazon's Dynamo."""

__version__ = "0.1.0"
