"""Runs the test files named as arguments, where no `pytest` command is."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
