"""Stylize pictures; see `python eval.py --help`."""

from fast_style.cli import script

if __name__ == "__main__":
    raise SystemExit(script("eval"))
