"""The wire: generated from `proto/headrace/v1` by `make proto`, never edited."""
