"""How fast headrace is: `python -m benchmarks` prints one table. See docs/benchmarks.md."""
