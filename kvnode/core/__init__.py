"""Decisions: what the store means, without I/O, clocks, threads or randomness of its own.

Laws: nothing here imports asyncio, grpc, os, time, threading, random or logging (held by an
import contract and by tests/unit/test_house.py). Time, chance and records are handed in.
"""
