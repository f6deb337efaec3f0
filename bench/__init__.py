"""Measures the store: workloads, a load generator in a process of its own, and reports.

    python -m bench --help

See bench/README.md. Not installed with the package.
"""
