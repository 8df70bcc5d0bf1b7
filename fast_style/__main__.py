"""`python -m fast_style COMMAND`."""

from fast_style.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
